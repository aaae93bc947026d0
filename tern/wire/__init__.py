"""Everything that speaks gRPC: engines in domain words, with their habits and their failures left outside.

Above the transport (transport.py) a remote engine and one in this process are the same code: engine_client.py
says what is asked, guard.py what is refused before anything is sent, translation.py reads and writes messages,
outcomes.py makes three values out of every way in which a call can end. routing.py finds the engine.
"""
