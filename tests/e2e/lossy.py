"""A connection that breaks when the upload is stored and not yet answered."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import urllib3

from tests.server import Server, asked


class LossyProxy(ThreadingHTTPServer):
    """Passes requests on to uponce, and eats the replies to the first `lost` uploads, which are complete by then."""

    daemon_threads = True

    def __init__(self, uponce: Server) -> None:
        super().__init__(("127.0.0.1", 0), LossyHandler)
        self.base = f"http://127.0.0.1:{self.server_port}"
        self.uponce = uponce
        self.uploads = 0
        self.lost = 1


class LossyHandler(BaseHTTPRequestHandler):
    server: LossyProxy

    def do_POST(self) -> None:
        self.server.uploads += 1
        reply = self._pass_on()
        if self.server.uploads > self.server.lost:
            self._answer(reply)
        self.close_connection = True

    do_PUT = do_POST

    def do_OPTIONS(self) -> None:
        self._answer(self._pass_on())
        self.close_connection = True

    def _pass_on(self) -> urllib3.BaseHTTPResponse:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = self.server.uponce.base + self.path
        return asked(self.command, url, body=body, headers=dict(self.headers))

    def _answer(self, reply: urllib3.BaseHTTPResponse) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.data)

    def log_message(self, *_: object) -> None:
        """Quiet."""
