"""A web server on this machine's loopback, for tests of what is downloaded."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serve(answer):
    """Serve `answer(method, path, headers)` -> (status, headers, content); yields the address and a list of the paths that
    were asked for. Content that is shorter than its Content-Length breaks the connection, as a fault of the network does."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def respond(self):
            asked.append(self.path)
            status, headers, content = answer(self.command, self.path, self.headers)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)
            self.close_connection = True

        do_GET = do_HEAD = respond

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
