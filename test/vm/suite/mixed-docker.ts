/** A swarm of both kinds of hosts managed by the real Docker Engine, on a kernel on which the real engine can balance, too. */
import { mixedSuite } from "../mixed.ts";

mixedSuite("a mixed swarm managed by the real Docker Engine, with IPVS", "vmy", "10.185.0.0/24", "dockerd");
