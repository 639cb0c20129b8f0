/** A swarm of both kinds of hosts on a kernel on which the real engine can balance, too. */
import { after, before, describe, it } from "node:test";
import type { EngineKind } from "../../src/lab/state.ts";
import { agreed, MixedLab } from "../interop/support/mixed.ts";
import { balanceTests } from "../interop/support/mixed-balance.ts";
import { meshTests } from "../interop/support/mixed-mesh.ts";
import { scene, stage } from "../interop/support/mixed-overlay.ts";

/** `managedBy`: whose managers lead it. */
export function mixedSuite(title: string, name: string, subnet: string, managedBy: EngineKind): void {
  describe(title, () => {
    let lab: MixedLab;
    before(async () => {
      lab = await MixedLab.make(name, subnet, managedBy);
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
}
