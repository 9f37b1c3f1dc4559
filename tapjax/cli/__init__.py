"""The `tapjax` command: flags in, library calls out.

```
main ──name──► one module for each command: define_flags(values), run(values)
                 │ common_flags   flags that several commands share
                 │ points         query points chosen by flags
                 │ sources        videos named by --video
                 └ progress       bars on stderr, results on stdout
```

A command is imported only when it runs: `tapjax --help` loads none of them.
"""
