"""A federation that is not ours: a server on FastMCP with the servers of MOUNTED (NAME=URL ...) mounted in it."""

import os

from fastmcp import FastMCP
from fastmcp.server import create_proxy

import serving

server = FastMCP("peer-mounting", version="1.0.0")
for mounted in os.environ["MOUNTED"].split():
    name, _, url = mounted.partition("=")
    server.mount(create_proxy(url), namespace=name)

serving.serve(server.http_app(path="/mcp"))
