"""The language of a 4PSA VoipNow PBX: UnifiedAPI, callbacks, and a sandbox that speaks both.

Usable alone: nothing here imports the rest of Offhook.
"""
