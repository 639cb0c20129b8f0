"""What older and newer clients ask for, by the Python SDK for Docker. Arguments: the engine's address, API versions."""
import io
import json
import sys
import tarfile

import docker

for version in sys.argv[2:]:
    client = docker.DockerClient(base_url=sys.argv[1], version=version)
    api = client.api
    assert api.ping()
    volume = client.volumes.create("old", labels={"a": "b"})
    network = client.networks.create("old", check_duplicate=True, labels={"a": "b"})
    box = client.containers.create(
        "skein/box",
        ["sh", "-c", "echo said; echo cried >&2; exec sleep 1000"],
        name="old",
        labels={"a": "b"},
        environment={"E": "1"},
        ports={"80/tcp": ("127.0.0.1", 8098)},
        volumes={"old": {"bind": "/v", "mode": "rw"}},
        mem_limit="64m",
        network="old",
        stdin_open=True,
    )
    box.start()
    box.reload()
    facts = {"version": version, "status": box.status}
    facts["network"] = list(box.attrs["NetworkSettings"]["Networks"])
    facts["port"] = box.attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    facts["mount"] = [mount["Destination"] for mount in box.attrs["Mounts"]]
    facts["memory"] = box.attrs["HostConfig"]["Memory"]
    code, (out, err) = box.exec_run(["sh", "-c", "echo $E; echo bad >&2; exit 4"], demux=True)
    facts["exec"] = [code, out.decode(), err.decode()]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("put")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"put\n"))
    box.put_archive("/tmp", archive.getvalue())
    chunks, stat = box.get_archive("/tmp/put")
    facts["archive"] = [stat["name"], stat["size"]]
    facts["listed"] = [each.name for each in client.containers.list(filters={"label": "a=b"})]
    facts["summary"] = sorted(api.containers(filters={"name": "old"})[0]["NetworkSettings"]["Networks"])
    facts["stats"] = box.stats(stream=False)["memory_stats"]["limit"]
    facts["top"] = len(box.top()["Processes"])
    facts["logs"] = sorted(box.logs().decode().split())
    box.pause()
    box.unpause()
    box.rename("older")
    box.update(mem_limit="48m")
    box.restart(timeout=0)
    box.kill()
    facts["wait"] = box.wait()["StatusCode"]
    image = box.commit("old", "made")
    facts["tags"] = image.tags
    facts["image"] = sorted(set(image.attrs) & {"Id", "RootFS", "Config", "VirtualSize", "Container"})
    client.images.remove("old:made")
    facts["df"] = sorted(client.df()) if version != "1.24" else []
    facts["info"] = client.info()["OSType"]
    try:
        client.containers.get("nosuch")
    except docker.errors.NotFound as error:
        facts["missing"] = error.status_code
    box.remove(v=True)
    network.remove()
    volume.remove()
    events = [event["status"] for event in api.events(since=1, until=2, decode=True)]
    facts["events"] = events
    print(json.dumps(facts), flush=True)
