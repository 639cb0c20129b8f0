/** A swarm that the real Docker Engine manages, with a host of each kind in it. See support/mixed-overlay.ts. */
import { after, before, describe } from "node:test";
import { dockerdMissing } from "./support/dockerd.ts";
import { MixedLab } from "./support/mixed.ts";
import { meshTests } from "./support/mixed-mesh.ts";
import { overlayTests, stage } from "./support/mixed-overlay.ts";
import { roleTests } from "./support/mixed-roles.ts";
import { serviceTests } from "./support/mixed-services.ts";

describe("a mixed swarm managed by the real Docker Engine", { skip: dockerdMissing() ?? false }, () => {
  let lab: MixedLab;
  before(async () => {
    lab = await MixedLab.make("mxd", "10.93.0.0/24", "dockerd");
    await stage(lab);
  });
  after(async () => {
    await lab?.[Symbol.asyncDispose]();
  });

  overlayTests(() => lab, "skein");
  serviceTests(() => lab);
  meshTests(() => lab);
  roleTests(() => lab);
});
