# SPDX-License-Identifier: GPL-2.0-only
"""A cluster of etcd for a test, on this machine."""
import base64
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request


# So that a test that is killed leaves nothing behind
DIES_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"]


def free_port():
    """A port that no outgoing connection can get meanwhile"""
    while True:
        port = random.SystemRandom().randrange(10000, 32000)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            pass


def text(encoded):
    return base64.b64decode(encoded).decode()


def encode(key):
    return base64.b64encode(key.encode()).decode()


class Member:
    def __init__(self, cluster, number):
        self.cluster = cluster
        self.name = "m%d" % number
        self.port = free_port()
        peer = free_port()
        self.listen_peer = "http://127.0.0.1:%d" % peer
        self.link = None
        if cluster.network:
            self.link = cluster.network.link(peer, cluster.who_uses)
            peer = self.link.port
        self.peer = "http://127.0.0.1:%d" % peer
        self.url = "%s://127.0.0.1:%d" % (cluster.scheme, self.port)
        self.data = os.path.join(cluster.directory, self.name)
        self.process = None

    def start(self):
        cluster = self.cluster
        with open(os.path.join(cluster.directory, "etcd.log"), "ab") as log:
            self.process = subprocess.Popen(
                DIES_WITH_PARENT + ["etcd", "--name", self.name, "--data-dir", self.data,
                 "--listen-peer-urls", self.listen_peer,
                 "--initial-advertise-peer-urls", self.peer,
                 "--listen-client-urls", self.url,
                 "--advertise-client-urls", self.url,
                 "--initial-cluster-token", cluster.token,
                 "--initial-cluster", ",".join(
                     "%s=%s" % (member.name, member.peer)
                     for member in cluster.members),
                 "--logger", "zap"] + cluster.options,
                stdout=log, stderr=log)

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def status(self):
        """Its own idea of the cluster; raises OSError if it does not answer."""
        return self.cluster.post(self.url, "maintenance/status", {})

    def is_leader(self):
        try:
            status = self.status()
        except OSError:
            return False
        return status.get("leader") == status["header"]["member_id"]


def inode_of(port):
    """The inode of the socket with this local port, as in /proc"""
    with open("/proc/net/tcp") as file:
        for line in file:
            words = line.split()
            if words[1].endswith(":%04X" % port):
                return words[9]
    return None


class Etcd:
    """options: more arguments of etcd
    network: if there may be partitions between its members
    """

    def __init__(self, directory, size=3, options=(), context=None,
                 network=None):
        self.directory = directory
        self.network = network
        self.context = context
        self.scheme = "https" if context else "http"
        self.options = list(options)
        self.token = "test"
        os.mkdir(directory)
        self.members = []
        for number in range(size):
            self.members.append(Member(self, number))
        self.start()

    def start(self):
        for member in self.members:
            if not member.process:
                member.start()
        self.wait()

    def kill(self):
        for member in self.members:
            member.kill()

    def who_uses(self, port):
        """The name of the member that has a connection from this port"""
        wanted = "socket:[%s]" % inode_of(port)
        for member in self.members:
            directory = "/proc/%d/fd/" % (
                member.process.pid if member.process else 0)
            try:
                for name in os.listdir(directory):
                    if os.readlink(directory + name) == wanted:
                        return member.name
            except FileNotFoundError:
                pass    # that member has just ended, or closed the file
        return None

    def partition(self, group):
        """Cuts these members off from the others."""
        for member in self.members:
            member.link.cut_from(other.name for other in self.members
                                 if (other in group) != (member in group))

    def heal(self):
        for member in self.members:
            member.link.heal()

    def wipe(self):
        """Starts a new cluster in place of this one."""
        self.kill()
        self.token += "+"
        for member in self.members:
            shutil.rmtree(member.data)
        self.start()

    def save(self):
        """Restarts the cluster; its data can later be restored."""
        self.kill()
        for member in self.members:
            shutil.copytree(member.data, member.data + ".saved")
        self.start()

    def restore(self):
        self.kill()
        for member in self.members:
            shutil.rmtree(member.data)
            shutil.copytree(member.data + ".saved", member.data)
        self.start()

    def wait(self, timeout=60):
        """Waits until the cluster answers."""
        end = time.monotonic() + timeout
        while True:
            try:
                return self.call("kv/range", {"key": encode("x")})
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def post(self, url, path, body, timeout=3):
        request = urllib.request.Request(
            "%s/v3/%s" % (url, path), json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=timeout,
                                    context=self.context) as answer:
            return json.load(answer)

    def call(self, path, body):
        """Asks any member that answers."""
        error = OSError("no member runs")
        for member in self.members:
            try:
                if member.process:
                    return self.post(member.url, path, body)
            except OSError as caught:
                error = caught
        raise error

    def leader(self, timeout=30):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for member in self.members:
                if member.process and member.is_leader():
                    return member
            time.sleep(0.1)
        raise AssertionError("etcd has no leader")

    def keys(self, prefix="/tlock/"):
        """The keys with this prefix: {key: (value, lease)}"""
        found = self.call("kv/range", {
            "key": encode(prefix),
            "range_end": encode(prefix[:-1] + chr(ord(prefix[-1]) + 1))})
        return {text(pair["key"]): (text(pair.get("value", "")),
                                    int(pair.get("lease", 0)))
                for pair in found.get("kvs", ())}

    def put(self, key, value):
        self.call("kv/put", {"key": encode(key), "value": encode(value)})

    def delete(self, key):
        self.call("kv/deleterange", {"key": encode(key)})

    def revoke(self, lease):
        self.call("lease/revoke", {"ID": lease})

    def close(self):
        for member in self.members:
            if member.process:
                member.signal(signal.SIGCONT)
        self.kill()


def tls(directory, *names):
    """Makes an authority and certificates signed by it, one for each name,
    valid for 127.0.0.1: NAME.crt and NAME.key, ca.crt"""
    def openssl(*arguments):
        subprocess.run(("openssl",) + arguments, cwd=directory, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
           "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt",
            "-days", "2", "-subj", "/CN=authority")
    with open(os.path.join(directory, "extensions"), "w") as file:
        file.write("subjectAltName=IP:127.0.0.1\n"
                   "extendedKeyUsage=serverAuth,clientAuth\n")
    for name in names:
        openssl("req", *key, "-keyout", name + ".key", "-out", name + ".csr",
                "-subj", "/CN=" + name)
        openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.crt",
                "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", "extensions", "-out", name + ".crt")


def client_context(directory, name):
    """For Etcd(context=): a client with the certificate NAME.crt"""
    context = ssl.create_default_context(
        cafile=os.path.join(directory, "ca.crt"))
    context.load_cert_chain(os.path.join(directory, name + ".crt"),
                            os.path.join(directory, name + ".key"))
    return context
