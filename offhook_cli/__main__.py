"""`python -m offhook` is `offhook`."""

from offhook_cli import main

main()
