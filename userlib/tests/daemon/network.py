# SPDX-License-Identifier: GPL-2.0-only
"""The network between daemons and members of etcd, which can be disturbed."""
import collections
import select
import socket
import struct
import threading
import time

# A pipe that cannot deliver stops reading, as TCP would
LIMIT = 1 << 16
UP, DOWN = "up", "down"     # to etcd, from etcd


class Pipe:
    """One direction of a connection"""

    def __init__(self, link, client, direction, source, sink):
        self.link = link
        self.client = client
        self.direction = direction
        self.source = source
        self.sink = sink
        self.queue = collections.deque()    # (time to deliver, data)
        self.size = 0
        self.open = True
        self.stranded = False

    def cut(self):
        return (self.stranded or self.direction in self.link.cut_off or
                self.client in self.link.cut_clients)

    def wants_read(self):
        return self.open and not self.cut() and self.size < LIMIT

    def due(self):
        """Seconds until there is something to deliver; None: nothing"""
        if not self.queue or self.cut():
            return None
        return max(self.queue[0][0] - time.monotonic(), 0)

    def read(self):
        data = self.source.recv(LIMIT)
        self.open = bool(data)
        if self.direction == DOWN:
            data = self.link.rewrite(data)
        self.size += len(data)
        # Without data, this is the end, which is delivered in its turn
        self.queue.append((time.monotonic() + self.link.lag, data))

    def write(self):
        data = self.queue[0][1]
        if not data:
            self.queue.popleft()
            self.sink.shutdown(socket.SHUT_WR)
            return
        sent = self.sink.send(data)
        self.size -= sent
        if sent == len(data):
            self.queue.popleft()
        else:
            self.queue[0] = (self.queue[0][0], data[sent:])

    def finished(self):
        return not self.open and not self.queue


class Connection:
    def __init__(self, link, client):
        self.link = link
        server = socket.create_connection(("127.0.0.1", link.target))
        for end in client, server:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)
        name = link.identify(client.getpeername()[1])
        self.pipes = (Pipe(link, name, UP, client, server),
                      Pipe(link, name, DOWN, server, client))

    def close(self, reset):
        for pipe in self.pipes:
            if reset:
                pipe.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                       struct.pack("ii", 1, 0))
            pipe.source.close()


class Link:
    """The way to a member: connect to `port`.

    identify: names a client by its port; cut_clients has the names of those that
        are cut off
    rewrite: called with each piece of data from the member, returns what to deliver
    """

    def __init__(self, network, target, identify):
        self.network = network
        self.target = target
        self.identify = identify
        self.cut_clients = frozenset()
        self.cut_off = frozenset()
        self.lag = 0.0
        self.rewrite = lambda data: data
        self.connections = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]

    def cut(self, *directions):
        """Cuts these directions, by default both. Data is held back meanwhile."""
        self.cut_off = frozenset(directions or (UP, DOWN))
        self.network.wake()

    def cut_from(self, clients):
        """Cuts only these clients."""
        self.cut_clients = frozenset(clients)
        self.network.wake()

    def strand(self):
        """Cuts the present connections, but not those that come."""
        with self.network.lock:
            for connection in self.connections:
                for pipe in connection.pipes:
                    pipe.stranded = True
        self.network.wake()

    def delay(self, seconds):
        """Delays what is sent from now on."""
        self.lag = seconds

    def heal(self):
        """Delivers everything that waits, and what comes."""
        self.cut_off = self.cut_clients = frozenset()
        self.lag = 0.0
        with self.network.lock:
            for connection in self.connections:
                for pipe in connection.pipes:
                    pipe.stranded = False
        self.network.wake()

    def reset(self):
        """Resets all connections."""
        with self.network.lock:
            for connection in self.connections:
                connection.close(True)
            self.connections.clear()
        self.network.wake()


class Network(threading.Thread):
    """All links of a test"""

    def __init__(self):
        super().__init__(daemon=True)
        self.lock = threading.Lock()
        self.links = []
        self.stopped = False
        self.reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        self.start()

    def link(self, target, identify=lambda port: None):
        link = Link(self, target, identify)
        with self.lock:
            self.links.append(link)
        self.wake()
        return link

    def wake(self):
        try:
            self.writer.send(b"!")
        except BlockingIOError:
            pass

    def stop(self):
        self.stopped = True
        self.wake()
        self.join()

    def run(self):
        while not self.stopped:
            with self.lock:
                poll, actions, timeout = self._prepare()
            ready = poll.poll(timeout)
            with self.lock:
                for number, _ in ready:
                    for action in actions.get(number, ()):
                        action()
        for link in self.links:
            link.listener.close()
            for connection in link.connections:
                connection.close(False)

    def _prepare(self):
        poll = select.poll()
        poll.register(self.reader, select.POLLIN)
        masks = collections.defaultdict(int)
        actions = collections.defaultdict(list)
        actions[self.reader.fileno()].append(lambda: self.reader.recv(4096))
        wait = 60.0
        for link in self.links:
            masks[link.listener.fileno()] |= select.POLLIN
            actions[link.listener.fileno()].append(
                lambda link=link: self._accept(link))
            for connection in link.connections[:]:
                if all(pipe.finished() for pipe in connection.pipes):
                    connection.close(False)
                    link.connections.remove(connection)
                    continue
                for pipe in connection.pipes:
                    due = pipe.due()
                    if pipe.wants_read():
                        number = pipe.source.fileno()
                        masks[number] |= select.POLLIN
                        actions[number].append(
                            lambda c=connection, p=pipe: self._do(c, p.read))
                    if due is not None and due <= 0:
                        number = pipe.sink.fileno()
                        masks[number] |= select.POLLOUT
                        actions[number].append(
                            lambda c=connection, p=pipe: self._do(c, p.write))
                    elif due is not None:
                        wait = min(wait, due)
        for number, mask in masks.items():
            poll.register(number, mask)
        return poll, actions, wait * 1000 + 1

    @staticmethod
    def _accept(link):
        client = link.listener.accept()[0]
        try:
            link.connections.append(Connection(link, client))
        except OSError:
            # The member is down: so is the connection
            client.close()

    @staticmethod
    def _do(connection, action):
        if connection not in connection.link.connections:
            return      # reset meanwhile
        try:
            action()
        except BlockingIOError:
            pass
        except OSError:
            connection.close(True)
            connection.link.connections.remove(connection)
