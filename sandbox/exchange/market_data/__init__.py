"""The venue's market data: ITCH 5.0 over MoldUDP64 on two lines, a re-request server and a snapshot server.

`image.py` turns book events into messages and knows the book as published; `publisher.py` numbers, paces and keeps packets;
`session_names.py` names MoldUDP64 sessions so that none comes twice; `store.py` answers requests; `line_faults.py` bends lines;
`channels.py` has the sockets. README.md of the exchange is the feed's specification.
"""
