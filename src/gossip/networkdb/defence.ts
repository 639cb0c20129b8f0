/**
 * Others' words about ourselves. Only we know what we have, so what is older than our own word is nothing to us, and what
 * is newer is wrong: a replay of what was long deleted and forgotten, or left over from a former life under the same
 * name. Docker's nodes let it stand; here it is set right with a still newer word, so that it dies out everywhere.
 */
import type { Announcer } from "./announcer.ts";
import type { Core } from "./core.ts";
import { encodeDb, type NetworkMessage, type TableMessage } from "./messages.ts";
import { reapEntryMs } from "./tables.ts";

/** So much is set right per second at most: whoever makes us talk shall not make us shout. */
const perSecond = 200;

export class Defence {
  readonly #core: Core;
  readonly #announcer: Announcer;
  #left = perSecond;

  constructor(core: Core, announcer: Announcer) {
    this.#core = core;
    this.#announcer = announcer;
  }

  /** Called every second. */
  refill(): void {
    this.#left = perSecond;
  }

  /** An entry said to be ours, in a network that we are in. */
  entry(event: TableMessage): void {
    const { networkId, table, key, ltime } = event;
    const mine = this.#core.tables.get(networkId, table, key);
    const gone = mine === undefined || mine.deleting;
    const wrong = event.type === "delete" ? !gone : gone || Buffer.compare(mine.value, event.value) !== 0;
    if (!wrong || (mine !== undefined && ltime < mine.ltime) || !this.#may()) return;
    if (gone) this.#say(event, event.value, true);
    else this.#say(event, mine.value, false);
  }

  /** That we joined or left a network. */
  network(event: NetworkMessage): void {
    const { own, peers, options, networkClock, tables } = this.#core;
    const { networkId } = event;
    const within = own.has(networkId);
    const said = peers.saidOf(options.name, networkId);
    if (within === (event.type === "join") || (said !== undefined && event.ltime < said)) return;
    if (!this.#may()) return;
    const ltime = networkClock.increment();
    peers.attach(options.name, networkId, ltime);
    if (!within) {
      peers.detach(options.name, networkId, ltime, options.clock.now());
      this.#announcer.network("leave", networkId, ltime);
      return;
    }
    this.#announcer.network("join", networkId, ltime);
    // Whoever believed it has buried what we have there.
    for (const { table, key, entry } of [...tables.entries(networkId)]) {
      if (entry.owner === options.name && !entry.deleting) this.#say({ networkId, table, key }, entry.value, false);
    }
  }

  #say(at: Pick<TableMessage, "networkId" | "table" | "key">, value: Uint8Array, deleting: boolean): void {
    const { options, tables, tableClock, gossip } = this.#core;
    const { name: owner, clock } = options;
    const { networkId, table, key } = at;
    const ltime = tableClock.increment();
    const reapAt = deleting ? clock.now() + reapEntryMs : 0;
    tables.set(networkId, table, key, { owner, ltime, value, deleting, reapAt });
    const type = deleting ? "delete" : "create";
    const residualReap = deleting ? reapEntryMs / 1000 : 0;
    const event: TableMessage = { kind: "table", type, ltime, owner, networkId, table, key, value, residualReap };
    gossip.push(networkId, `${table}/${key}`, encodeDb(event), true);
  }

  #may(): boolean {
    const { counters } = this.#core.options;
    if (this.#left <= 0) {
      counters.add("ignored.aboutUs");
      return false;
    }
    this.#left--;
    counters.add("setRight");
    return true;
  }
}
