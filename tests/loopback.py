"""A web server on this machine's loopback, and a small hub of models on it, for tests of what is downloaded."""

import hashlib
import json
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


def a_hub(repositories, changed=None):
    """The answers of a hub, {(repository, commit): {file name: content}}; `changed(path)` may give another answer, or None."""

    def answer(method, path, headers):
        path = path.split("?")[0]
        if changed and changed(path):
            return changed(path)
        for (repository, commit), files in repositories.items():
            if path == f"/api/models/{repository}/tree/{commit}":
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
                return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
            prefix = f"/{repository}/resolve/{commit}/"
            if path.startswith(prefix) and path.removeprefix(prefix) in files:
                content = files[path.removeprefix(prefix)]
                known = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
                start = int(headers["Range"].removeprefix("bytes=").split("-")[0]) if headers["Range"] else 0
                if start:
                    size = len(content)
                    return 206, known | {"Content-Range": f"bytes {start}-{size - 1}/{size}"}, content[start:]
                return 200, known, content
        return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""

    return answer
