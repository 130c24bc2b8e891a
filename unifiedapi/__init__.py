"""The API and callbacks of a 4PSA VoipNow PBX, and a simulated PBX that implements both.

Usable alone: nothing here imports the rest of Offhook.
"""
