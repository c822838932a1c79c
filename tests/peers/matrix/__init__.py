"""Every client against every server, directly and through the gateway; `__main__` tells the story.

`peers` names clients and servers and starts them, `features` says what each pair has to do and when it
has done it, `table` writes docs/peers.md. Standard library only.
"""
