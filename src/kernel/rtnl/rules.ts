/** Policy rules: which routing table a marked packet uses. */
import { KernelError } from "../error.ts";
import { AF_INET, AF_INET6 } from "../libc.ts";
import { attributes, Builder, type Message, NLM_F_CREATE, NLM_F_EXCL, u32Of } from "../netlink/codec.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";
import type { Rule } from "../types.ts";

const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTM_GETRULE = 34;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
const FR_ACT_TO_TBL = 1;

/** struct fib_rule_hdr */
function header(family: number, table = 0, action = 0): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.set([family, 0, 0, 0, table < 256 ? table : 0, 0, 0, action]);
  return bytes;
}

export function list(socket: NetlinkSocket): Rule[] {
  return [AF_INET, AF_INET6].flatMap((family) => {
    try {
      return socket.dump("list rules", RTM_GETRULE, new Builder(header(family))).flatMap((message) => {
        const rule = parse(message);
        return rule ? [rule] : [];
      });
    } catch (error) {
      // A kernel without rules for a family has none to list.
      if (error instanceof KernelError && (error.code === "EOPNOTSUPP" || error.code === "EAFNOSUPPORT")) return [];
      throw error;
    }
  });
}

function parse({ type, body }: Message): Rule | undefined {
  if (type !== RTM_NEWRULE || body.readUInt8(7) !== FR_ACT_TO_TBL) return undefined;
  const attrs = attributes(body, 12);
  const mark = u32Of(attrs, FRA_FWMARK);
  const mask = u32Of(attrs, FRA_FWMASK);
  return {
    family: body.readUInt8(0) === AF_INET ? 4 : 6,
    priority: u32Of(attrs, FRA_PRIORITY) ?? 0,
    ...(mark !== undefined && { mark }),
    ...(mask !== undefined && { mask }),
    table: u32Of(attrs, FRA_TABLE) ?? body.readUInt8(4),
  };
}

function message(rule: Rule): Builder {
  const family = rule.family === 4 ? AF_INET : AF_INET6;
  const builder = new Builder(header(family, rule.table, FR_ACT_TO_TBL))
    .u32(FRA_PRIORITY, rule.priority)
    .u32(FRA_TABLE, rule.table);
  if (rule.mark !== undefined) builder.u32(FRA_FWMARK, rule.mark);
  if (rule.mask !== undefined) builder.u32(FRA_FWMASK, rule.mask);
  return builder;
}

export function add(socket: NetlinkSocket, rule: Rule): void {
  socket.request(`add rule ${rule.priority}`, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, message(rule));
}

/** A rule that is not there is no error. */
export function del(socket: NetlinkSocket, rule: Rule): void {
  try {
    socket.request(`delete rule ${rule.priority}`, RTM_DELRULE, 0, message(rule));
  } catch (error) {
    if (!(error instanceof KernelError && error.code === "ENOENT")) throw error;
  }
}
