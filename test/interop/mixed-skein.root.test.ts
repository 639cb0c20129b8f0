/** A swarm that Skein manages, with a host of each kind in it. See support/mixed-overlay.ts. */
import { after, before, describe } from "node:test";
import { dockerdMissing } from "./support/dockerd.ts";
import { MixedLab } from "./support/mixed.ts";
import { meshTests } from "./support/mixed-mesh.ts";
import { overlayTests, stage } from "./support/mixed-overlay.ts";
import { roleTests } from "./support/mixed-roles.ts";
import { serviceTests } from "./support/mixed-services.ts";

describe("a mixed swarm managed by Skein", { skip: dockerdMissing() ?? false }, () => {
  let lab: MixedLab;
  before(async () => {
    lab = await MixedLab.make("mxs", "10.94.0.0/24", "skeind");
    await stage(lab);
  });
  after(async () => {
    await lab?.[Symbol.asyncDispose]();
  });

  overlayTests(() => lab, "docker");
  serviceTests(() => lab);
  meshTests(() => lab);
  roleTests(() => lab);
});
