"""The words of `starphleet`: what each command takes, and what runs it.

What more than `receiver.local` a command needs it imports when it runs: most are to be quick.
"""
