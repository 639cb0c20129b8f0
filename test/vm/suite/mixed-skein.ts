/** A swarm of both kinds of hosts managed by Skein, on a kernel on which the real engine can balance, too. */
import { after, before, describe, it } from "node:test";
import { agreed, MixedLab } from "../../interop/support/mixed.ts";
import { balanceTests } from "../../interop/support/mixed-balance.ts";
import { meshTests } from "../../interop/support/mixed-mesh.ts";
import { scene, stage } from "../../interop/support/mixed-overlay.ts";

describe("a mixed swarm managed by Skein, with IPVS", () => {
  let lab: MixedLab;
  before(async () => {
    lab = await MixedLab.make("vmx", "10.184.0.0/24", "skeind");
    await stage(lab);
  });
  after(async () => {
    await lab?.[Symbol.asyncDispose]();
  });

  it("every host knows every name and reaches all behind it, virtual addresses included", async () => {
    await agreed(lab, scene, 240_000);
  });
  balanceTests(() => lab);
  meshTests(() => lab);
});
