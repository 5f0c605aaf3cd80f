"""Mistakes that the step proofs, the random kills, the ring's tests and the model checker must find.

Name, file, (text, replacement) for each way that is executed, and the proofs, with their arguments.
"""

PRODUCER, DOORBELL = "src/ring/producer.rs", "src/ring/doorbell.rs"
READER, SHOWN = "src/bus/reader.rs", "src/bus/reader/shown.rs"
WRITER, LEAVE = "src/bus/writer.rs", "src/session/leave.rs"
KILL, FREEZE, RANDOM = "proof_kill", "proof_freeze", "proof_random"
# Not whole processes, but the ring alone: its unit tests, and every interleaving of them.
UNITS, LOOM = "ring tests", "model checker"
KILLS = ["--kills", "400", "--fences", "0", "--seed", "1"]
# It takes a kill between two stores that lie side by side.
MORE_KILLS = ["--kills", "4000", "--fences", "0", "--seed", "1"]
FENCES = ["--kills", "0", "--fences", "200", "--seed", "1"]

HOT_COPY = "        // SAFETY: the frames from the head on are free, reserved and long enough; nobody"
LONG_COPY = "        if self.ring.overwrite {\n            self.mark();\n            // SAFETY: the frames"
EARLY_COMMIT = (
    "        {\n"
    "            let word = self.ring.stamp(self.head) | message.len() as u64;\n"
    "            self.ring.frames.at(self.head).commit().store(word, Ordering::Release);\n"
    "        }\n")
GLANCE = "glance() == 0"
NO_SEAL = "glance() & !SEALED == 0"

# name, file, (text, replacement) for each way that is executed, and the proofs that must fail
PROVEN = [
    ("commit before the payload", PRODUCER,
     [(HOT_COPY, EARLY_COMMIT + HOT_COPY), (LONG_COPY, EARLY_COMMIT + LONG_COPY)],
     [(KILL, ["--ignored", "Write master"]), (FREEZE, ["--ignored", "Write master"]),
      (RANDOM, KILLS), (UNITS, []), (LOOM, [])]),
    ("position published first", PRODUCER,
     [("        self.publish_in(frame, len as u32, frames);\n        self.count(len);",
       "        self.ring.store_place(Place {\n"
       "            pos: self.head.wrapping_add(frames),\n"
       "            number: self.number.wrapping_add(1),\n"
       "            epoch: self.announced,\n"
       "            last_epoch: self.last_epoch(),\n"
       "            bytes: self.bytes,\n"
       "        });\n"
       "        self.publish_in(frame, len as u32, frames);\n        self.count(len);")],
     [(KILL, ["--ignored", "Write master"]), (FREEZE, ["--ignored", "Write master"]),
      (RANDOM, MORE_KILLS), (UNITS, []), (LOOM, [])]),
    # Only the model checker can notice: announcing a sleep is a locked instruction, which on x86 is a
    # full barrier itself, so that without the fence the same things happen in the same order.
    ("no fence before sleeping", DOORBELL,
     [("        fence(Ordering::SeqCst);\n    }\n\n    /// Takes", "    }\n\n    /// Takes")],
     [(LOOM, [])]),
    ("no barrier before the look at the bell", DOORBELL,
     [("        light_barrier();\n", "")], [(LOOM, [])]),
    ("commit words of an earlier lap stay", PRODUCER,
     [("            self.clear(next, frames);\n", "")],
     [(KILL, ["--ignored", "WriteGhost"]), (UNITS, []), (LOOM, [])]),
    ("the writer does not look for the seal", WRITER,
     [(f"        self.ring.ring().data_bell().{GLANCE}\n",
       f"        self.ring.ring().data_bell().{NO_SEAL}\n")],
     [(FREEZE, ["--ignored", "Write master"]), (RANDOM, FENCES)]),
    ("the reader does not look for the seal", READER,
     [(f"let is_left_alone = self.ring.ring().room_bell().{GLANCE};",
       f"let is_left_alone = self.ring.ring().room_bell().{NO_SEAL};")],
     [(FREEZE, ["--ignored", "Read master"])]),
    ("a message is shown without a look for the seal", SHOWN,
     [(f"(self.ring.ring().room_bell().{GLANCE}).then(", "true.then("),
      (f"Ok(Some(found)) if self.ring.ring().room_bell().{GLANCE} =>",
       "Ok(Some(found)) if true =>")],
     [(FREEZE, ["--ignored", "Write master"])]),
    ("a reader that moved does not look again", READER,
     [("                return if is_inside && is_mine { Ok(true) } else { Err(error) };\n            }\n",
       "                return if is_inside && is_mine { Ok(true) } else { Err(error) };\n            }\n"
       "            self.ring.publish();\n            return Ok(is_inside);\n")],
     [(FREEZE, ["--ignored", "MoveRead"])]),
    ("a name is unlinked before the bus is retired", LEAVE,
     [("        && bus.swap_turn(turn, None);\n    bus.unlock(bytes)?;",
       "        && shm::unlink(&bus.facts().path).is_ok()\n"
       "        && bus.swap_turn(turn, None);\n    bus.unlock(bytes)?;")],
     [(KILL, ["--ignored", "LeaveLast"])]),
    ("the last one leaves without looking who is there", LEAVE,
     [("    while !bus.try_lock(bytes.clone())? {", "    while false && !bus.try_lock(bytes.clone())? {"),
      ("            _ => return None,\n", "            _ => {}\n")],
     [(KILL, ["Attach"])]),
]
