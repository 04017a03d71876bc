"""What scale.sh does to a cluster's API server and to Shunt's dataplane, and how long that takes."""

import argparse
import asyncio
import concurrent.futures
import datetime
import http.client
import json
import re
import ssl
import statistics
import sys
import threading
import time

CLASS = "shunt.dev/l4"
# Of an endpoint change, from the API server's answer until all workers forward by it.
LIMIT_P50_S = 0.2


class Api:
    """The API server, one connection per thread."""

    def __init__(self, kubeconfig):
        # control-plane.sh writes it, one value after each of these words.
        text = open(kubeconfig).read()
        self.host, port = text.split('server: "https://')[1].split('"')[0].rsplit(":", 1)
        self.port = int(port)
        self.token = text.split("token: ")[1].split("}")[0]
        self.local = threading.local()

    def connect(self):
        return http.client.HTTPSConnection(self.host, self.port, context=ssl._create_unverified_context())

    def ask(self, method, path, body=None, kind="application/json", good=(200, 201)):
        if not hasattr(self.local, "connection"):
            self.local.connection = self.connect()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        self.local.connection.request(method, path, body and json.dumps(body), headers)
        answer = self.local.connection.getresponse()
        text = answer.read()
        if answer.status not in good:
            sys.exit(f"{method} {path}: {answer.status} {text.decode()[:300]}")
        return json.loads(text)

    def watch(self, path):
        """The objects that a watch tells of, from now on."""
        connection = self.connect()
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        for line in connection.getresponse():
            yield json.loads(line)["object"]


def node(number, subnet, first):
    name = f"scale-{number}"
    address = {"type": "InternalIP", "address": f"{subnet}.{first + number}"}
    metadata = {"name": name, "labels": {"scale": "yes"}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"addresses": [address]}}


def service(number):
    local = number % 2 == 1
    # Thousands of ports that are checked every two seconds are another test.
    annotations = {"shunt.dev/health-interval": "20s"} if local else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"s{number}", "annotations": annotations},
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": CLASS,
            "allocateLoadBalancerNodePorts": False,
            "externalTrafficPolicy": "Local" if local else "Cluster",
            "ports": [{"port": 80, "protocol": "TCP"}],
        },
    }


def slice_of(number, nodes, shift=0):
    """Three pods; shifted, on other nodes."""
    at = [(number * 7 + shift + pod * 17) % nodes for pod in range(3)]
    endpoints = [
        {
            "addresses": [f"10.200.{number % 250}.{pod + 1}"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"scale-{place}",
        }
        for pod, place in enumerate(at)
    ]
    labels = {"kubernetes.io/service-name": f"s{number}", "endpointslice.kubernetes.io/managed-by": "scale"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"s{number}", "labels": labels},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    }


SERVICES = "/api/v1/namespaces/scale/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/scale/endpointslices"


def clear(api, pool):
    """Removes the objects of a run before, of which nobody else takes care now."""
    api.ask("DELETE", SLICES)
    names = [item["metadata"]["name"] for item in api.ask("GET", SERVICES, good=(200, 404)).get("items", [])]

    def remove(name):
        path = f"{SERVICES}/{name}"
        api.ask("PATCH", path, {"metadata": {"finalizers": None}}, "application/merge-patch+json")
        api.ask("DELETE", path)

    list(pool.map(remove, names))


def objects(api, arguments):
    """Puts everything there."""
    new = (200, 201, 409)
    began = time.time()
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "scale"}}
    api.ask("POST", "/api/v1/namespaces", namespace, good=new)

    def add_node(number):
        value = node(number, arguments.subnet, arguments.first)
        api.ask("POST", "/api/v1/nodes", value, good=new)
        path = f"/api/v1/nodes/scale-{number}/status"
        api.ask("PATCH", path, {"status": value["status"]}, "application/merge-patch+json")

    def add_service(number):
        api.ask("POST", SERVICES, service(number), good=new)
        api.ask("POST", SLICES, slice_of(number, arguments.nodes), good=new)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        clear(api, pool)
        list(pool.map(add_node, range(arguments.nodes)))
        list(pool.map(add_service, range(arguments.services)))
    print(f"objects: {arguments.services} Services, {arguments.nodes} nodes after {time.time() - began:.1f} s")


def served(api):
    """How many Services show an address."""
    items = api.ask("GET", SERVICES)["items"]
    return {item["metadata"]["name"] for item in items if item["status"]["loadBalancer"].get("ingress")}


def start(api, arguments):
    """Until all Services are served and say so."""
    began, last = float(arguments.since), time.time()
    seen, version = served(api), api.ask("GET", SERVICES + "?limit=1")["metadata"]["resourceVersion"]
    seen |= served(api)
    changed = api.watch(f"{SERVICES}?watch=true&resourceVersion={version}&timeoutSeconds=600")
    while len(seen) < arguments.services:
        item = next(changed)
        if item["status"]["loadBalancer"].get("ingress"):
            seen.add(item["metadata"]["name"])
            last = time.time()
    print(f"all {len(seen)} served after {programmed(arguments) - began:.1f} s, ", end="")
    print(f"all statuses written after {last - began:.1f} s")


def programmed(arguments):
    """When all workers forwarded by a generation with all Services, by the control plane's log."""
    log = read_log(arguments)
    whole = rf"as generation (\d+) \(services: {arguments.services},"
    first = min(int(generation) for generation in re.findall(whole, log))
    times = [at for at, generation in acknowledged(log) if generation >= first]
    return times[0] if times else sys.exit(f"{arguments.log}: the dataplane did not take generation {first}")


def read_log(arguments):
    return re.sub(r"\x1b\[[0-9;]*m", "", open(arguments.log).read())


def acknowledged(log):
    """When all workers forwarded by which generation, as the control plane says."""
    for at, generation in re.findall(r"(\S+Z).* forwards by generation (\d+)", log):
        yield datetime.datetime.fromisoformat(at).timestamp(), int(generation)


def changes(api, arguments):
    """Endpoints of Local Services move to other nodes, one Service at a time."""
    answered, pause_s = [], 0.5
    time.sleep(5)
    for turn in range(arguments.count):
        number = (turn * 2 + 1) % arguments.services | 1
        changed = {"endpoints": slice_of(number, arguments.nodes, 1 + turn % 5)["endpoints"]}
        api.ask("PATCH", f"{SLICES}/s{number}", changed, "application/merge-patch+json")
        answered.append(time.time())
        time.sleep(pause_s)
    time.sleep(2)
    # Asking the dataplane all the time would slow it down.
    forwarded = [at for at, _ in acknowledged(read_log(arguments))]
    taken = [next((at - since for at in forwarded if at > since), None) for since in answered]
    if None in taken:
        sys.exit(f"change {taken.index(None)} did not reach the dataplane")
    quantiles = statistics.quantiles(taken, n=100)
    p50, p99 = quantiles[49], quantiles[98]
    print(f"endpoint change: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, most {max(taken) * 1e3:.0f} ms of {len(taken)}")
    if p50 > LIMIT_P50_S:
        sys.exit(f"half of the changes should take less than {LIMIT_P50_S * 1e3:.0f} ms")


async def answer():
    """200 to whatever is asked on port 10256."""

    async def serve(reader, writer):
        try:
            while (await reader.readuntil(b"\r\n\r\n")):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", 10256)
    await server.serve_forever()


def main():
    parser = argparse.ArgumentParser()
    for name, kind in [("kubeconfig", str), ("subnet", str), ("services", int), ("nodes", int), ("first", int)]:
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("command", choices=["objects", "start", "changes", "answer"])
    parser.add_argument("--log")
    parser.add_argument("--since")
    parser.add_argument("--count", type=int)
    arguments = parser.parse_args()
    if arguments.command == "answer":
        return asyncio.run(answer())
    api = Api(arguments.kubeconfig)
    return {"objects": objects, "start": start, "changes": changes}[arguments.command](api, arguments)


if __name__ == "__main__":
    main()
