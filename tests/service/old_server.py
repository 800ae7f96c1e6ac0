"""Stands in for the server that emberd replaces: its port and its /health. Run as a script."""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

HEALTH = {"status": "ok", "model": "old", "dimensions": 384, "loaded": False}


class Handler(BaseHTTPRequestHandler):
    """Answers everything with /health."""

    def do_GET(self) -> None:
        """Answer."""
        body = json.dumps(HEALTH).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
