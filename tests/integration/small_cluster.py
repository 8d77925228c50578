"""A Ray cluster of several raylets on this machine, steered by lines on standard input.

    add -> "node <id>"    remove <id>    stats -> one JSON line: object-store counters by node    (end of input: stop)

The head has CPUs for learner and memory alone; every added node has room for one worker. A process of its own, so that
Ray's state in it is nobody else's.
"""

import json
import sys

import ray
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster


def stores() -> dict[str, dict[str, int]]:
    """Bytes and objects that each node's store has created, which counts copies fetched from other nodes."""
    found = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            reply = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"])  # type: ignore[no-untyped-call]
            stats = reply.store_stats
            found[node["NodeID"]] = {
                "bytes": stats.cumulative_created_bytes,
                "objects": stats.cumulative_created_objects,
            }
    return found


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 300 * 2**20})
    ray.init(address=cluster.address, log_to_driver=False)
    nodes = {}
    print("address", cluster.address, flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "add":
            node = cluster.add_node(num_cpus=int(arguments[0]), object_store_memory=300 * 2**20)
            nodes[node.node_id] = node
            print("node", node.node_id, flush=True)
        elif command == "remove":
            cluster.remove_node(nodes.pop(arguments[0]), allow_graceful=False)
            print("removed", arguments[0], flush=True)
        elif command == "stats":
            print(json.dumps(stores()), flush=True)
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
