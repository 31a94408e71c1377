# SPDX-License-Identifier: GPL-2.0-only
"""The lock of etcd's Go package concurrency, done through the JSON gateway.

It makes the requests that its Mutex makes, in their order. A contender puts a key
of its own under its lease if there is none, and reads the oldest key of the prefix
in the same transaction. If that is not its own, it reads the newest key that is
older than its own, waits by a watch for the deletion of that key, and reads again;
once there is none, it has the lock. To unlock it deletes its key.
"""
import json
import os
import socket
import subprocess
import sys
import time

from daemon.etcd import encode
from daemon.gate import now

_HEAD = ("POST /v3/%s HTTP/1.1\r\nHost: etcd\r\n"
         "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s")


class Client:
    """A connection that is kept alive"""

    def __init__(self, port):
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, path, body):
        """Returns whether the answer is in chunks, or else its size."""
        body = json.dumps(body)
        self.socket.sendall((_HEAD % (path, len(body), body)).encode())
        status = self.file.readline()
        assert b" 200 " in status, status
        size = None
        while True:
            line = self.file.readline().strip().lower()
            if not line:
                return size
            if line.startswith(b"content-length:"):
                size = int(line.split()[1])

    def chunk(self):
        data = self.file.read(int(self.file.readline(), 16))
        self.file.readline()
        return data

    def call(self, path, body):
        size = self.send(path, body)
        if size is None:
            data = b"".join(iter(self.chunk, b""))
        else:
            data = self.file.read(size)
        return json.loads(data)

    def wait_deleted(self, key, revision):
        watch = Client(self.port)
        watch.send("watch", {"create_request": {
            "key": key, "start_revision": revision}})
        while b'"DELETE"' not in watch.chunk():
            pass
        watch.close()


class Mutex:
    def __init__(self, port, prefix):
        self.client = Client(port)
        self.lease = self.client.call("lease/grant", {"TTL": 60})["ID"]
        self.prefix = {"key": encode(prefix + "/"),
                       "range_end": encode(prefix + "0")}
        self.key = encode("%s/%x" % (prefix, int(self.lease)))

    def lock(self):
        oldest = {"request_range": dict(
            self.prefix, sort_order="ASCEND", sort_target="CREATE", limit=1)}
        answer = self.client.call("kv/txn", {
            "compare": [{"target": "CREATE", "key": self.key,
                         "create_revision": 0}],
            "success": [{"request_put": {"key": self.key,
                                         "lease": self.lease}}, oldest],
            "failure": [{"request_range": {"key": self.key}}, oldest]})
        assert answer["succeeded"]
        revision = int(answer["header"]["revision"])
        owner = answer["responses"][1]["response_range"]["kvs"][0]
        if int(owner["create_revision"]) == revision:
            return
        while True:
            answer = self.client.call("kv/range", dict(
                self.prefix, sort_order="DESCEND", sort_target="CREATE",
                limit=1, max_create_revision=revision - 1))
            if "kvs" not in answer:
                return
            self.client.wait_deleted(answer["kvs"][0]["key"],
                                     answer["header"]["revision"])

    def unlock(self):
        self.client.call("kv/deleterange", {"key": self.key})


def hand_overs(port, prefix, rounds, hold):
    """Two contenders, each a process, take turns; returns how long each hand-over
    takes, in nanoseconds: from just before the key's deletion until the other one
    has the lock."""
    command = [sys.executable, "-m", "daemon.recipe", str(port), prefix,
               str(rounds), str(hold)]
    environment = dict(os.environ, PYTHONPATH=":".join(sys.path))
    contenders = [subprocess.Popen(command, stdout=subprocess.PIPE,
                                   env=environment) for _ in range(2)]
    grants = []
    for contender in contenders:
        grants += json.loads(contender.communicate()[0])
    grants.sort()
    return [after[0] - before[1] for before, after in zip(grants, grants[1:])]


def contend(port, prefix, rounds, hold):
    """Returns the begin and the end of each grant."""
    mutex = Mutex(port, prefix)
    grants = []
    for _ in range(rounds):
        mutex.lock()
        begin = now()
        time.sleep(hold)
        grants.append((begin, now()))
        mutex.unlock()
    return grants


if __name__ == "__main__":
    print(json.dumps(contend(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]),
                             float(sys.argv[4]))))
