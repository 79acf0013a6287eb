"""A text that would run a script or break the page, if the page did not escape it."""

SCRIPT_TEXT = "</script><script>window.struck = 1</script><img src=x onerror='window.struck = 1'>\u2028<!--\x01%%data%%"
