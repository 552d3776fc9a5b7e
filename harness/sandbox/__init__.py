"""What a run's processes may see and do, enforced by the kernel: no C compiler, no root and no other program is needed.

    namespaces  users, mounts, network and processes of their own; Landlock on top where the kernel has it
    landlock    the caller's own view of the machine, with rights to the listed files and to TCP's ephemeral ports only
    none        a supervisor that ends all processes, and nothing else

policy     what one sandbox shows, as a value that travels to the supervisor
surroundings  what every sandbox shows of this machine: system libraries, the interpreter, GPU devices
available  which of them this machine can make, tried for real, and why not a stronger one
confine    the supervisor's child turns itself into the confined command
"""
