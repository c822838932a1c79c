"""The same server with the Python SDK.

Environment: PORT
"""

import os

import uvicorn
from mcp.server import MCPServer

from offered import offer_on

server = MCPServer("python", log_level="WARNING")
offer_on(server)
app = server.streamable_http_app(json_response=True, stateless_http=True)
uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
