"""Files that another process, another run or a stranger may have written: bounded readers, durable writers, Arrow tables."""
