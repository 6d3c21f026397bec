"""The RPCs of the order service, and the batches behind them."""
