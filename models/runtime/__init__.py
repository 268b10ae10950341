"""Where and how models compute: device, precision, processors, threads, memory."""
