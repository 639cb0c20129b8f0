/** One example of everything that can be rendered; small enough to be read as golden text. */
import type { HostState, MeshHost, MeshSandbox, MeshTask, VipService } from "../../../../src/network/balancer/types.ts";

const vips: VipService[] = [
  { id: "k3web.n1", vip: "10.0.1.2", backends: ["10.0.1.4", "10.0.1.5", "10.0.1.6"] },
  { id: "single.n1", vip: "10.0.1.3", backends: ["10.0.1.7"] },
  { id: "nobody.n1", vip: "10.0.1.8", backends: [] },
];

const vips6: VipService[] = [
  { id: "k3web.n1", vip: "fd00:1::2", backends: ["fd00:1::4", "fd00:1::5"] },
  { id: "nobody.n1", vip: "fd00:1::8", backends: [] },
];

const meshHost: MeshHost = {
  bridge: "docker_gwbridge",
  bridgeSubnet: "172.18.0.0/16",
  ingressSubnet: "10.0.0.0/24",
  sandbox: "172.18.0.2",
  ports: [
    { protocol: "tcp", publishedPort: 8080 },
    { protocol: "udp", publishedPort: 53 },
    { protocol: "tcp", publishedPort: 9090, bound: ["127.0.0.1/32", "192.168.60.0/24"] },
  ],
};

const meshHostWithLeg: MeshHost = {
  ...meshHost,
  leg: {
    device: "veth-ingress",
    mark: 0x50000000,
    mask: 0xf0000000,
    near: ["10.0.0.0/24", "127.0.0.0/8", "172.17.0.0/16", "172.18.0.0/16"],
    ports: [
      { protocol: "tcp", publishedPort: 8080, tasks: ["10.0.0.5", "10.0.0.6"] },
      { protocol: "udp", publishedPort: 53, tasks: ["10.0.0.7"] },
    ],
  },
};

const meshSandbox: MeshSandbox = {
  ingressDevice: "eth0",
  ingressAddress: "10.0.0.2",
  gatewayDevice: "eth1",
  gatewaySubnet: "172.18.0.0/16",
  ports: [
    {
      protocol: "tcp",
      publishedPort: 8080,
      backends: [
        { address: "10.0.0.5", returnsToEntry: true },
        { address: "10.0.0.6", returnsToEntry: false },
      ],
    },
    { protocol: "udp", publishedPort: 53, backends: [{ address: "10.0.0.7", returnsToEntry: true }] },
    { protocol: "tcp", publishedPort: 9000, backends: [] },
  ],
};

const meshTask: MeshTask = {
  ingressDevice: "eth0",
  ingressAddress: "10.0.0.5",
  ingressSubnet: "10.0.0.0/24",
  defaultSource: "172.18.0.3",
  ports: [
    { protocol: "tcp", publishedPort: 8080, targetPort: 80 },
    { protocol: "tcp", publishedPort: 8081, targetPort: 80 },
    { protocol: "udp", publishedPort: 53, targetPort: 53 },
  ],
  headed: [40001],
  entries: [
    { address: "10.0.0.2", mac: "02:f7:3c:91:aa:01", leg: "06:f7:3c:91:aa:01" },
    { address: "10.0.0.3", mac: "02:5b:00:17:c4:99" },
  ],
  egressHook: true,
};

const host: HostState = {
  bridges: [
    { name: "docker0", subnets: ["172.17.0.0/16"] },
    { name: "br-0123456789ab", subnets: ["172.19.0.0/16", "fd19::/64"] },
  ],
  ports: [
    { protocol: "tcp", hostIp: "", hostPort: 8080, address: "172.17.0.2", containerPort: 80 },
    { protocol: "tcp", hostIp: "0.0.0.0", hostPort: 8443, address: "172.19.0.2", containerPort: 443 },
    { protocol: "tcp", hostIp: "::", hostPort: 8443, address: "fd19::2", containerPort: 443 },
    { protocol: "udp", hostIp: "127.0.0.1", hostPort: 5353, address: "172.17.0.2", containerPort: 53 },
    { protocol: "sctp", hostIp: "fd60::1", hostPort: 3868, address: "fd19::2", containerPort: 3868 },
  ],
};

export const examples = { vips, vips6, meshHost, meshHostWithLeg, meshSandbox, meshTask, host };
