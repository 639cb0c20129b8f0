import assert from "node:assert/strict";
import { test } from "node:test";
import { hostsFile, parseResolvConf, resolvConf } from "../../../src/network/files.ts";

const none = { servers: [], search: [], options: [] };
const host = parseResolvConf(
  "# comment\nsearch example.com corp\nnameserver 127.0.0.53\nnameserver 192.0.2.53 ; x\noptions edns0\n",
);

test("resolv.conf: embedded resolver, the default bridge's, the host's", () => {
  assert.equal(
    resolvConf("embedded", none, host),
    "search example.com corp\nnameserver 127.0.0.11\noptions edns0 ndots:0\n",
  );
  assert.equal(resolvConf("direct", none, host), "search example.com corp\nnameserver 192.0.2.53\noptions edns0\n");
  assert.equal(
    resolvConf("host", none, host),
    "search example.com corp\nnameserver 127.0.0.53\nnameserver 192.0.2.53\noptions edns0\n",
  );
  const user = { servers: ["198.51.100.1"], search: ["."], options: ["ndots:3"] };
  assert.equal(resolvConf("embedded", user, host), "nameserver 127.0.0.11\noptions ndots:3\n");
  assert.equal(resolvConf("direct", user, host), "nameserver 198.51.100.1\noptions ndots:3\n");
  const loopbackOnly = parseResolvConf("nameserver ::1\nnameserver 127.0.0.1\n");
  assert.equal(resolvConf("direct", none, loopbackOnly), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
});

test("hosts: loopback names, extra hosts, the container's own address on each network", () => {
  const text = hostsFile({
    hostname: "box",
    domainname: "example.com",
    addresses: ["10.0.1.3", "172.20.0.2"],
    extraHosts: ["db:10.1.1.1", "six=fd00::1", "gw:host-gateway", "broken"],
    hostGateway: "172.17.0.1",
  });
  assert.equal(
    text,
    `127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
10.1.1.1\tdb
fd00::1\tsix
172.17.0.1\tgw
10.0.1.3\tbox.example.com box
172.20.0.2\tbox.example.com box
`,
  );
});
