// defaults.cpp - what a C++ program gets that says nothing: the same as in Rust.
#include "eshm.hpp"
#include "check.h"

#include <atomic>
#include <exception>
#include <stdexcept>
#include <thread>

using std::chrono::milliseconds;

static std::string what_is_said(const eshm::options &options)
{
    try {
        eshm::bus bus(options);
    } catch (const eshm::error &trouble) {
        CHECK(trouble.code() == eshm::errc::role_taken);
        return trouble.what();
    }
    return {};
}

// Beyond the second that reading waits, and without an end that could be waited for.
static void writing_waits_for_room()
{
    std::string name = bus_name("room");
    eshm::bus master(eshm::options(name).role(eshm::role::master).frames(64));
    eshm::bus slave(name, eshm::role::slave);
    std::uint64_t sent = 0, read = 0;
    while (master.try_write_value(sent)) {
        sent++;
    }
    const std::uint64_t last = UINT64_MAX;
    std::atomic<bool> is_through{false};
    std::thread writer([&] {
        master.write_value(sent);
        is_through = true;
        while (master.try_write_value(++sent)) {
        }
        eshm::claim place = master.claim(sizeof last);
        std::memcpy(place.data(), &last, sizeof last);
        place.commit();
    });
    EVENTUALLY(master.stats().master_to_slave.writer_parks > 0);
    poll(nullptr, 0, 1300);
    CHECK(!is_through);
    const eshm::timeout patience = std::chrono::seconds(20);
    for (std::uint64_t next; (next = slave.read_value<std::uint64_t>(patience)) != last;) {
        EQUAL(next, read++);
    }
    writer.join();
    EQUAL(read, sent);
}

static void reading_waits_a_second()
{
    std::error_code trouble;
    std::byte buffer[8];
    eshm::bus master(bus_name("second"));
    double begun = seconds();
    master.read(eshm::place(buffer, 8), trouble);
    CHECK(trouble == eshm::errc::timeout && seconds() - begun >= 1);
}

static void a_living_master_is_left_alone()
{
    std::string name = bus_name("alone");
    eshm::bus master(name, eshm::role::master);
    eshm::options options(name);
    options.role(eshm::role::master);
    const std::string owner = "pid " + std::to_string(getpid());
    for (eshm::takeover takeover : {eshm::takeover::never, eshm::takeover::hung}) {
        std::string said = what_is_said(options.takeover(takeover));
        CHECK(said.find(owner) != std::string::npos && said.find("alive") != std::string::npos);
    }
    CHECK(!what_is_said(eshm::options(name).role(eshm::role::master)).empty());
    bool is_refused = false;
    try {
        eshm::bus second(name, eshm::role::master);
    } catch (const eshm::error &trouble) {
        is_refused = trouble.code() == eshm::errc::role_taken;
    }
    CHECK(is_refused);
    master.write("still here");
    eshm::bus second(options.takeover(eshm::takeover::always));
    std::error_code trouble;
    master.write("too late", trouble);
    CHECK(trouble == eshm::errc::replaced);
    // As ESHM 1.0 has it, for a program that says so.
    ESHMConfig config = eshm_default_config(name.c_str());
    config.role = ESHM_ROLE_MASTER;
    eshm::bus third(config);
    second.write("too late", trouble);
    CHECK(trouble == eshm::errc::replaced);
    eshm::bus slave(name, eshm::role::slave);
    CHECK(eshm::view(slave.read()).text() == "still here");
    CHECK(!slave.try_peek());
}

static void hang(void *with)
{
    eshm::bus master(static_cast<const char *>(with), eshm::role::master);
    pause();
}

static void a_hung_master_is_replaced_if_asked()
{
    const char *name = bus_name("hung");
    pid_t child = spawn(hang, const_cast<char *>(name));
    {
        eshm::bus slave(name, eshm::role::slave);
        CHECK(slave.wait_for_peer(std::chrono::seconds(20)));
        EQUAL(kill(child, SIGSTOP), 0);
        EVENTUALLY(slave.peer().state == ESHM_PEER_HUNG);
        eshm::options options(name);
        options.role(eshm::role::master);
        CHECK(what_is_said(options).find("hung") != std::string::npos);
        eshm::bus master(options.takeover(eshm::takeover::hung));
        master.write("mine");
        CHECK(eshm::view(slave.read()).text() == "mine");
    }
    killed(child);
}

static void make_it_later(void *with)
{
    poll(nullptr, 0, 150);
    eshm::bus master(static_cast<const char *>(with), eshm::role::master);
    master.write("at last");
}

static void opening_waits()
{
    const char *name = bus_name("opening");
    eshm::options options(name);
    options.role(eshm::role::slave);
    std::error_code trouble;
    double begun = seconds();
    CHECK(!eshm::bus::open(options.open_timeout(eshm::no_wait), trouble));
    CHECK(trouble == eshm::errc::no_segment);
    CHECK(!eshm::bus::open(options.open_timeout(milliseconds(80)), trouble));
    CHECK(trouble == eshm::errc::no_segment && seconds() - begun >= 0.08);
    // Not that it waits too long, but that it waits at all; a busy machine may be slow.
    pid_t child = spawn(make_it_later, const_cast<char *>(name));
    eshm::bus slave(name, eshm::role::slave);
    CHECK(eshm::view(slave.read(std::chrono::seconds(20))).text() == "at last");
    joined(child);
}

static void send_two(void *with)
{
    eshm::bus master(static_cast<const char *>(with), eshm::role::master);
    master.write("one");
    master.write("two");
    pause();
}

// Beyond all limits of a reconnect, which count only where giving up was asked for.
static void reading_goes_on_over_restarts()
{
    const char *name = bus_name("restarts");
    for (bool gives_up : {false, true}) {
        eshm::options options(name);
        options.role(eshm::role::slave).reconnect_wait(milliseconds(30));
        if (gives_up) {
            options.on_disconnect(eshm::disconnect::on_timeout);
        }
        pid_t child = spawn(send_two, const_cast<char *>(name));
        eshm::bus slave(options);
        for (int life = 0; life < 3; life++) {
            for (const char *expected : {"one", "two"}) {
                CHECK(eshm::view(slave.read(std::chrono::seconds(20))).text() == expected);
            }
            killed(child);
            EVENTUALLY(slave.peer().state == ESHM_PEER_DEAD);
            std::error_code trouble;
            std::byte buffer[8];
            slave.read(eshm::place(buffer, 8), milliseconds(200), trouble);
            CHECK(trouble == (gives_up ? eshm::errc::peer_gone : eshm::errc::timeout));
            child = spawn(send_two, const_cast<char *>(name));
            CHECK(slave.wait_for_peer(std::chrono::seconds(20)));
        }
        killed(child);
        EVENTUALLY(slave.peer().state == ESHM_PEER_DEAD);
        slave.leave();
        EQUAL(eshm_remove(name, nullptr, true), ESHM_SUCCESS);
    }
}

static void fail_after_three(const eshm::options &options)
{
    eshm::bus master(options);
    for (std::uint64_t number = 0; number < 3; number++) {
        master.write_value(number);
    }
    eshm::claim half = master.claim(8);
    std::memcpy(half.data(), "half a v", 8);
    throw std::runtime_error("something of the program's own");
}

static void caught_at_the_end(void *with)
{
    try {
        fail_after_three(eshm::options(static_cast<const char *>(with)));
    } catch (const std::exception &) {
        return;
    }
    _exit(1);
}

static void caught_and_removed(void *with)
{
    try {
        eshm::options options(static_cast<const char *>(with));
        fail_after_three(options.cleanup(eshm::cleanup::always));
    } catch (const std::exception &) {
        return;
    }
    _exit(1);
}

static void not_caught(void *with)
{
    // Says nothing and leaves no core.
    std::set_terminate([] { _exit(77); });
    std::thread thread([=] {
        fail_after_three(eshm::options(static_cast<const char *>(with)));
    });
    thread.join();
}

/** Sees that the three are there, and that the bus goes when they are read and both have left. */
static void read_three(const char *name)
{
    CHECK(is_there(name));
    {
        eshm::bus slave(name, eshm::role::slave);
        for (std::uint64_t number = 0; number < 3; number++) {
            EQUAL(slave.read_value<std::uint64_t>(), number);
        }
        CHECK(!slave.try_peek());
        // The one that died has not left; its successor does.
        eshm::bus master(name, eshm::role::master);
    }
    CHECK(!is_there(name));
}

// Destroyed by an exception is left: the rule of removal holds, and keeps what is unread.
static void exceptions_delete_nothing()
{
    const char *name = bus_name("thrown");
    joined(spawn(caught_at_the_end, const_cast<char *>(name)));
    read_three(name);
    int status = 0;
    pid_t child = spawn(not_caught, const_cast<char *>(name));
    EQUAL(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 77);
    read_three(name);
    // Who wishes for it gets it.
    joined(spawn(caught_and_removed, const_cast<char *>(name)));
    CHECK(!is_there(name));
}

static void the_more_careful_wish_wins()
{
    const char *name = bus_name("wishes");
    {
        eshm::options options(name);
        eshm::bus master(options.role(eshm::role::master).cleanup(eshm::cleanup::always));
        eshm::bus slave(options.role(eshm::role::slave).cleanup(eshm::cleanup::never));
        master.write("read");
        slave.read();
    }
    CHECK(is_there(name));
    eshm::bus(name, eshm::role::slave).leave();
    CHECK(!is_there(name));
}

// What is assigned to is left at once, not when the other object goes.
static void assigned_over()
{
    std::string first = bus_name("first"), second = bus_name("second");
    eshm::bus bus(first), other(second);
    bus = std::move(other);
    CHECK(!is_there(first.c_str()) && is_there(second.c_str()));
    eshm::bus &itself = bus;
    bus = std::move(itself);
    bus.write("still open");
    CHECK(eshm::view(eshm::bus(second).read()).text() == "still open");
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"writing_waits_for_room", writing_waits_for_room},
        {"reading_waits_a_second", reading_waits_a_second},
        {"a_living_master_is_left_alone", a_living_master_is_left_alone},
        {"a_hung_master_is_replaced_if_asked", a_hung_master_is_replaced_if_asked},
        {"opening_waits", opening_waits},
        {"reading_goes_on_over_restarts", reading_goes_on_over_restarts},
        {"exceptions_delete_nothing", exceptions_delete_nothing},
        {"the_more_careful_wish_wins", the_more_careful_wish_wins},
        {"assigned_over", assigned_over},
    };
    return RUN(tests, argc, argv);
}
