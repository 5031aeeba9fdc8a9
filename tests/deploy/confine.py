#!/usr/bin/env python3
"""Runs a program under a seccomp profile, as a container runtime does, by libseccomp itself.

    confine.py PROFILE PROGRAM [ARGUMENT...]

PROFILE is a file in the form that container runtimes read. The program runs without capabilities, as nobody if this is run by
root, and can gain none. The exit code is 77 where libseccomp is missing.
"""

import ctypes
import ctypes.util
import errno
import json
import os
import sys


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


# enum scmp_compare, from 1 on.
OPERATORS = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]
ALLOW = 0x7FFF0000


def action(name, error):
    if name == "SCMP_ACT_ALLOW":
        return ALLOW
    assert name == "SCMP_ACT_ERRNO", name
    return 0x00050000 | error


def comparison(argument):
    operator = argument["op"].removeprefix("SCMP_CMP_")
    first, second = argument["value"], argument.get("valueTwo", 0)
    # The mask comes first.
    return Comparison(argument["index"], OPERATORS.index(operator) + 1, first, second)


def load(library, profile):
    context = library.seccomp_init(action(profile["defaultAction"], profile.get("defaultErrnoRet", errno.EPERM)))
    assert context
    context = ctypes.c_void_p(context)
    for rule in profile["syscalls"]:
        assert not rule.get("includes") and not rule.get("excludes"), rule
        does = action(rule["action"], rule.get("errnoRet", errno.EPERM))
        comparisons = [comparison(argument) for argument in rule.get("args", [])]
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            # -1 is one that this libseccomp has not heard of, and others below are those of other architectures.
            if number < 0:
                continue
            array = (Comparison * len(comparisons))(*comparisons)
            result = library.seccomp_rule_add_array(context, does, number, len(comparisons), array)
            assert result == 0, (name, os.strerror(-result))
    # It sets no_new_privs first.
    result = library.seccomp_load(context)
    assert result == 0, os.strerror(-result)


def main():
    found = ctypes.util.find_library("seccomp")
    if found is None:
        sys.exit(77)
    library = ctypes.CDLL(found)
    library.seccomp_init.restype = ctypes.c_void_p
    with open(sys.argv[1]) as file:
        profile = json.load(file)
    # Opened before anybody is somebody else: nobody may see nothing of where it is.
    program = os.open(sys.argv[2], os.O_RDONLY)
    os.set_inheritable(program, True)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    load(library, profile)
    os.execve(program, sys.argv[2:], os.environ)


main()
