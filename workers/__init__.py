"""The RQ jobs: dispatch and redelivery, and the processes that run them."""
