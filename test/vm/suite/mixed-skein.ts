/** A swarm of both kinds of hosts managed by Skein, on a kernel on which the real engine can balance, too. */
import { mixedSuite } from "../mixed.ts";

mixedSuite("a mixed swarm managed by Skein, with IPVS", "vmx", "10.184.0.0/24", "skeind");
