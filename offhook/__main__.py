"""`python -m offhook` is `offhook`."""

from offhook.cli import main

main()
