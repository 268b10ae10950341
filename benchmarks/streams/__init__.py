"""Generated streams that judge the adaptive detector."""
