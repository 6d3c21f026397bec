"""What risk does on its own: it follows orders and prices, settles orphans, and tells svc_oms of kill switches."""
