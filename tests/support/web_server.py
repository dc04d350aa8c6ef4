"""Small web servers of a test's own, in place of other programs' services."""

from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Handler(BaseHTTPRequestHandler):
    """Answers as `respond` does, which a subclass has; logs nothing."""

    def do_GET(self):
        self.respond()

    def do_POST(self):
        self.respond()

    def body(self):
        return self.rfile.read(int(self.headers["Content-Length"]))

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serving(handler, address="127.0.0.1", port=0):
    """A server on its thread, which looks often whether it is to end."""
    with ThreadingHTTPServer((address, port), handler) as server:
        server.daemon_threads = True
        server.url = f"http://{address}:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
