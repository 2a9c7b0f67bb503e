"""One child process: forked before its turn, or started anew; its output, its end."""
