"""What scripts on the Python SDK for Docker do; prints one JSON line per step. Argument: the engine's address."""
import json
import sys
import time

import docker
from docker.types import EndpointSpec, ServiceMode

client = docker.DockerClient(base_url=sys.argv[1])


def tell(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


def until(condition):
    for _ in range(150):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError("waited 15 s")


def running(service):
    return sum(task["Status"]["State"] == task["DesiredState"] == "running" for task in service.tasks())


client.swarm.init(advertise_addr=sys.argv[2])
tell("swarm", state=client.info()["Swarm"]["LocalNodeState"], nodes=[n.attrs["Status"]["State"] for n in client.nodes.list()])

network = client.networks.create("pynet", driver="overlay", attachable=True)
service = client.services.create(
    "skein/box",
    ["sh", "-c", "echo said; exec httpd -f -p 80"],
    name="py",
    init=True,
    networks=["pynet"],
    mode=ServiceMode("replicated", 2),
    endpoint_spec=EndpointSpec(ports={8055: 80}),
)
until(lambda: running(service) == 2)
# The managers have written to the service since it was read: that is no conflict.
service.scale(3)
service.reload()
service.update(labels={"a": "b"}, force_update=1, fetch_current_spec=True)
service.reload()
until(lambda: service.reload() or service.attrs.get("UpdateStatus", {}).get("State") == "completed")
until(lambda: running(service) == 3)
until(lambda: b"".join(service.logs(stdout=True)).count(b"said") >= 3)
tell("service", mode=service.attrs["Spec"]["Mode"], labels=service.attrs["Spec"]["Labels"])

box = client.containers.run("skein/box", ["sh", "-c", "echo hi; sleep 1000"], detach=True, network="pynet", name="box")
code, output = box.exec_run(["nslookup", "tasks.py"])
usage = next(box.stats(stream=True, decode=True))["memory_stats"]["usage"]
until(lambda: box.logs() == b"hi\n")
chunks, stat = box.get_archive("/etc/hostname")
tell("container", code=code, found=output.decode().count("10.0."), usage=usage > 0, file=stat["name"], tar=len(b"".join(chunks)))
box.stop(timeout=0)
tell("ended", code=box.wait()["StatusCode"])
box.remove()
tell("once", output=client.containers.run("skein/box", "echo once", remove=True).decode())

secret = client.secrets.create(name="s", data=b"x")
config = client.configs.create(name="c", data=b"x")
tell("kept", secrets=[s.name for s in client.secrets.list()], config=client.configs.get(config.id).name)
secret.remove()
config.remove()
volume = client.volumes.create("vol")
tell("volume", name=volume.name)
volume.remove()
try:
    client.containers.get("nosuch")
except docker.errors.NotFound as error:
    tell("missing", words=error.explanation)
service.remove()
until(lambda: not client.containers.list())
network.remove()
client.swarm.leave(force=True)
tell("left", state=client.info()["Swarm"]["LocalNodeState"])
