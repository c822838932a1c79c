"""The same server with FastMCP.

Environment: PORT
"""

import os

import uvicorn
from fastmcp import FastMCP

from offered import offer_on

server = FastMCP("fastmcp")
offer_on(server)
app = server.http_app(path="/mcp", json_response=True, stateless_http=True)
uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
