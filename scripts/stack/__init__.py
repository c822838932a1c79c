"""The stack around the plugin, for the demo and the tests: real tools, real servers, a real vault.

Read top-down: `demo` tells the story; `preparing` obtains and builds what runs; `running` is the
stack once it runs, and what can be asked of it; `servers` says what is started and how it is set up;
`keeping` hands a running stack to other programs; `supervisor` starts and stops processes; `tools`
obtains programs; `people` signs tokens; `console` talks.

Standard library only, except `people`, which runs inside the virtual environment `tools` makes.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit(f"error: python3 is {sys.version.split()[0]}; install Python 3.11 or newer")
