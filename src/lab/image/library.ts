/**
 * The images of the tutorials, built from Debian packages for machines that reach no registry. Each carries the name
 * that the tutorials use and does what they show of it; none is the image of that name in a registry.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { run } from "../process.ts";
import { type FinishedLayer, type ImageRecipe, writeArchive } from "./archive.ts";
import { Layer } from "./layer.ts";
import { librariesIn, unpackPackages } from "./packages.ts";

export const packages = ["busybox", "bash", "curl", "bind9-dnsutils", "nginx-light", "redis-server"];

/** A page that tells its host's name and its client's address. */
const helloPage = `#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "Hello from $(hostname)"
echo "client $REMOTE_ADDR"
`;

/** Counts its requests in redis, as the three-tier example does. */
const counterPage = `#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "Hello from $(hostname)"
echo "This page has been viewed $(redis-cli -h "\${REDIS_HOST:-redis}" incr hits) times"
`;

/** Stands in for Alpine's package manager: what the tutorials install with it is in the image already. */
const apk = `#!/bin/sh
for word; do
  case "$word" in
    add|update|--*|-*) ;;
    bash|curl|netcat-openbsd|bind-tools|busybox) echo "OK: $word is in this image" ;;
    *) echo "apk: this image was built from Debian packages and has no $word" >&2; exit 1 ;;
  esac
done
`;

const nginxConf = (body: string) => `daemon off;
user root;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr;
events { worker_connections 256; }
http {
  access_log /dev/stdout;
  default_type text/html;
  server {
    listen 80;
${body}
  }
}
`;
const welcome = nginxConf(`    location / {
      return 200 "<html><title>Welcome to nginx!</title><body>Hello from $hostname\\nclient $remote_addr\\n</body></html>\\n";
    }`);
const proxy = nginxConf(`    resolver 127.0.0.11;
    location / { set $upstream http://node:8888; proxy_pass $upstream; }`);

const etc: Record<string, string> = {
  "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
  "etc/group": "root:x:0:\nnogroup:x:65534:\n",
  "etc/nsswitch.conf": "hosts: files dns\n",
  "etc/services": "http 80/tcp\nhttps 443/tcp\ndomain 53/tcp\ndomain 53/udp\n",
};

async function programs(root: string, paths: readonly string[]): Promise<Layer> {
  const layer = new Layer();
  for (const path of paths) {
    layer.copy(root, path);
    for (const library of await librariesIn(root, path)) layer.copy(root, library);
  }
  return layer;
}

/** BusyBox and what it needs, with the page of `helloPage`. */
export async function baseLayer(root: string): Promise<FinishedLayer> {
  const applets = (await run([join(root, "bin/busybox"), "--list"])).stdout.split("\n");
  const layer = new Layer();
  for (const dir of [
    "bin",
    "etc",
    "lib",
    "lib64",
    "proc",
    "root",
    "sys",
    "dev",
    "run",
    "usr/bin",
    "usr/sbin",
    "var/run",
  ]) {
    layer.dir(dir);
  }
  layer.dir("tmp", 0o1777).copy(root, "bin/busybox");
  for (const applet of applets.filter((name) => /^[\w[-]+$/.test(name))) layer.link(`bin/${applet}`, "busybox");
  for (const library of await librariesIn(root, "bin/busybox")) layer.copy(root, library);
  for (const [path, content] of Object.entries(etc)) layer.file(path, content);
  layer.file("www/cgi-bin/index.cgi", helloPage, 0o755).file("sbin/apk", apk, 0o755);
  return layer.finish();
}

/** BusyBox's httpd has no handler for SIGTERM, which process 1 of a container then ignores. */
const httpd = (port: number, home = "/www") => ({
  Cmd: ["httpd", "-f", "-p", String(port), "-h", home],
  StopSignal: "SIGKILL",
});
const port = (number: number) => ({ [`${number}/tcp`]: {} });

const names = {
  basic: ["skein/hello:latest", "skein/box:latest", "alpine:latest", "busybox:latest"],
  web: ["alpine/git:latest", "huyinghuan/helloworld:latest", "nicolaka/pets_web:1.0", "nginx:latest", "nginx:alpine"],
  large: ["sixeyed/ubuntu-with-utils:latest", "nvbeta/swarm_nginx:latest", "redis:latest", "nvbeta/node:latest"],
} as const;

/**
 * "basic" is what `npm start` shows itself with. The documents name the others besides: "web" is what most of them use,
 * "large" what one does.
 */
export type Collection = keyof typeof names;
export const collections: readonly Collection[] = ["basic", "web", "large"];

/** The names that a collection gives to a host. */
export function imageNames(collection: Collection): readonly string[] {
  return names[collection];
}

/** The archive of a collection, built where it is missing. `cache` keeps packages and archives. */
export async function archiveOf(cache: string, collection: Collection): Promise<string> {
  const archive = join(cache, `${collection}.tar`);
  if (!existsSync(archive)) await buildArchives(cache);
  return archive;
}

async function buildArchives(cache: string): Promise<void> {
  const root = await unpackPackages(cache, packages);
  const base = await baseLayer(root);
  const tools = await (await programs(root, ["bin/bash", "usr/bin/curl"])).finish();
  const dig = await (await programs(root, ["usr/bin/dig"])).finish();
  const server = await programs(root, ["usr/sbin/nginx"]);
  const nginx = await server.dir("var/lib/nginx").dir("var/log/nginx").dir("usr/share/nginx").finish();
  const redis = await (await programs(root, ["usr/bin/redis-check-rdb", "usr/bin/redis-cli"]))
    .link("usr/bin/redis-server", "redis-check-rdb")
    .finish();
  const conf = (text: string) => new Layer().file("etc/nginx/nginx.conf", text).finish();
  const counter = await new Layer().file("counter/cgi-bin/index.cgi", counterPage, 0o755).finish();
  const box = { layers: [base, tools], config: { Cmd: ["/bin/sh"] } };
  const nginxConfig = { Cmd: ["nginx", "-c", "/etc/nginx/nginx.conf"], ExposedPorts: port(80) };
  const page = (number: number) => ({ layers: [base], config: { ...httpd(number), ExposedPorts: port(number) } });
  await writeArchive(join(cache, "basic.tar"), [
    { tags: ["skein/hello:latest"], ...page(80) },
    { tags: ["skein/box:latest", "alpine:latest", "busybox:latest"], ...box },
  ]);
  const web: ImageRecipe[] = [
    { tags: ["alpine/git:latest"], ...box },
    { tags: ["huyinghuan/helloworld:latest"], ...page(8080) },
    { tags: ["nicolaka/pets_web:1.0"], ...page(5000) },
    { tags: ["nginx:latest", "nginx:alpine"], layers: [base, tools, nginx, await conf(welcome)], config: nginxConfig },
  ];
  await writeArchive(join(cache, "web.tar"), web);
  const large: ImageRecipe[] = [
    { tags: ["sixeyed/ubuntu-with-utils:latest"], layers: [base, tools, dig], config: { Cmd: ["/bin/bash"] } },
    { tags: ["nvbeta/swarm_nginx:latest"], layers: [base, tools, nginx, await conf(proxy)], config: nginxConfig },
    {
      tags: ["redis:latest"],
      layers: [base, redis],
      config: { Cmd: ["redis-server", "--protected-mode", "no", "--save", ""], ExposedPorts: port(6379) },
    },
    {
      tags: ["nvbeta/node:latest"],
      layers: [base, redis, counter],
      config: { ...httpd(8888, "/counter"), ExposedPorts: port(8888) },
    },
  ];
  await writeArchive(join(cache, "large.tar"), large);
}
