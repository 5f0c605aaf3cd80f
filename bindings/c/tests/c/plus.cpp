// plus.cpp - the C++17 header: what each call does.
#include "eshm.hpp"
#include "check.h"

#include <cstring>
#include <thread>
#include <type_traits>

using std::chrono::milliseconds;

static_assert(!std::is_copy_constructible_v<eshm::bus> && std::is_move_constructible_v<eshm::bus>);
static_assert(!std::is_copy_constructible_v<eshm::claim> && !std::is_copy_constructible_v<eshm::tap>);
static_assert(!std::is_copy_constructible_v<eshm::batch> && std::is_move_assignable_v<eshm::batch>);

// Any duration is a time to wait, and none becomes a shorter one.
static_assert(eshm::timeout(std::chrono::microseconds(1)).count() == 1);
static_assert(eshm::timeout(milliseconds(7)).count() == 7);
static_assert(eshm::timeout(std::chrono::nanoseconds(7000001)).count() == 8);
static_assert(eshm::timeout(std::chrono::seconds(-1)) == eshm::no_wait);
static_assert(eshm::timeout(std::chrono::hours::max()) == eshm::forever);

/** The code that a call throws. */
template <class Call> static std::error_code thrown(Call call)
{
    try {
        call();
    } catch (const eshm::error &trouble) {
        CHECK(std::string(trouble.what()).size() > 10);
        return trouble.code();
    }
    return {};
}

struct pair {
    eshm::bus master, slave;
    explicit pair(eshm::options options)
        : master(options.role(eshm::role::master)), slave(options.role(eshm::role::slave)) {}
    explicit pair(const char *name) : pair(eshm::options(name)) {}
};

static void text_and_values()
{
    std::string name = bus_name("text");
    eshm::bus master(name, eshm::role::master), slave(name, eshm::role::slave);
    CHECK(master.role() == eshm::role::master && slave.role() == eshm::role::slave);
    master.write("a literal");
    master.write(std::string("a string"));
    master.write(std::vector<int>{1, 2, 3});
    master.write(std::array<char, 2>{'o', 'k'});
    master.write_value(42.0);
    std::vector<std::byte> buffer(64);
    EQUAL(slave.read(buffer), 9);
    CHECK(eshm::view(buffer.data(), 9).text() == "a literal");
    std::vector<std::byte> message = slave.read();
    CHECK(eshm::view(message).text() == "a string");
    int numbers[3];
    EQUAL(slave.read(eshm::place(numbers, sizeof numbers)), sizeof numbers);
    EQUAL(numbers[2], 3);
    std::array<char, 2> two;
    EQUAL(slave.read(two), 2);
    CHECK(two[1] == 'k');
    CHECK(slave.read_value<double>() == 42.0);
    CHECK(!slave.try_read(buffer).has_value());
    master.write("");
    CHECK(slave.try_read(buffer) == std::optional<std::size_t>(0));
    master.write("");
    CHECK(slave.read().empty());
    CHECK(master.wait_for_peer(std::chrono::seconds(20)));
    CHECK(master.is_peer_alive());
    EQUAL(master.peer().state, ESHM_PEER_ALIVE);
    EQUAL(master.stats().master_to_slave.written, 7);
    EQUAL(master.last_committed()->number, 6);
    EQUAL(slave.last_id()->number, 6);
    CHECK(!slave.last_committed().has_value() && !master.last_id().has_value());
    EQUAL(slave.lost(), 0);
    slave.beat();
}

struct sample {
    double time;
    std::int32_t values[4];
};

// As in Rust: a message of another length is refused, and is still there.
static void values_of_one_length(eshm::options options)
{
    pair both(options);
    sample out = {1.5, {1, 2, 3, 4}};
    for (std::size_t wrong : {std::size_t(0), sizeof(sample) - 1, sizeof(sample) + 1}) {
        std::vector<char> bytes(wrong, 'w');
        both.master.write(bytes);
        both.master.write_value(out);
        for (int time = 0; time < 2; time++) {
            CHECK(thrown([&] { both.slave.read_value<sample>(); }) == eshm::errc::wrong_size);
            CHECK(thrown([&] { both.slave.try_read_value<sample>(); }) == eshm::errc::wrong_size);
            CHECK(std::string(eshm_last_error()).find("the type 24") != std::string::npos);
            std::error_code trouble;
            CHECK(!both.slave.read_value<sample>(trouble) && trouble == eshm::errc::wrong_size);
        }
        CHECK(both.slave.next_len() == std::optional<std::size_t>(wrong));
        EQUAL(both.slave.read().size(), wrong);
        sample in = both.slave.read_value<sample>();
        CHECK(in.time == 1.5 && in.values[3] == 4);
    }
    CHECK(!both.slave.try_read_value<sample>());
    CHECK(thrown([&] { both.slave.read_value<sample>(milliseconds(1)); }) == eshm::errc::timeout);
    CHECK(both.slave.lost() == 0);
}

static void values()
{
    values_of_one_length(eshm::options(bus_name("values")));
    values_of_one_length(
        eshm::options(bus_name("raced-values")).overflow(eshm::overflow::overwrite));
}

static void failures()
{
    std::string name = bus_name("failures");
    eshm::options options(name);
    options.role(eshm::role::slave).open_timeout(eshm::no_wait);
    bool is_thrown = false;
    try {
        eshm::bus slave(options);
    } catch (const eshm::error &trouble) {
        is_thrown = true;
        CHECK(trouble.code() == eshm::errc::no_segment);
        CHECK(std::string(trouble.what()).find(name) != std::string::npos);
    }
    CHECK(is_thrown);
    std::error_code trouble;
    CHECK(!eshm::bus::open(options, trouble) && trouble == eshm::errc::no_segment);
    options.role(eshm::role::master).read_timeout(milliseconds(1)).write_timeout(milliseconds(1));
    std::optional<eshm::bus> master = eshm::bus::open(options, trouble);
    CHECK(master && !trouble);
    std::byte buffer[8];
    EQUAL(master->read(eshm::place(buffer, 8), eshm::no_wait, trouble), 0);
    CHECK(trouble == eshm::errc::no_data);
    master->read(eshm::place(buffer, 8), trouble);
    CHECK(trouble == eshm::errc::timeout);
    CHECK(!trouble.message().empty());
    CHECK(!master->wait_for_peer(eshm::no_wait) && !master->wait_for_peer(milliseconds(1)));
    CHECK(!master->peek(eshm::no_wait, trouble) && trouble == eshm::errc::no_data);
    CHECK(!master->try_peek() && !master->next_len());
    while (master->try_write("fill")) {
    }
    CHECK(!master->try_write_value(1) && !master->try_claim(1));
    master->write("x", eshm::no_wait, trouble);
    CHECK(trouble == eshm::errc::full);
    CHECK(!master->claim(1, eshm::no_wait, trouble) && trouble == eshm::errc::full);
    // As long as the options say.
    CHECK(thrown([&] { master->write("x"); }) == eshm::errc::timeout);
    CHECK(thrown([&] { master->write_value(1); }) == eshm::errc::timeout);
    CHECK(thrown([&] { master->write_many({"x"}); }) == eshm::errc::timeout);
    CHECK(thrown([&] { master->claim(1); }) == eshm::errc::timeout);
    CHECK(thrown([&] { master->read(); }) == eshm::errc::timeout);
    CHECK(thrown([&] { master->peek(); }) == eshm::errc::timeout);
    std::vector<char> huge(master->max_message() + 1);
    CHECK(thrown([&] { master->write(huge); }) == eshm::errc::too_long);
    master->leave();
    CHECK(thrown([&] { master->try_write("x"); }) == eshm::errc::invalid);
    // Nobody read what is in it.
    CHECK(is_there(name.c_str()));
}

static void in_place()
{
    std::string name = bus_name("in-place");
    eshm::bus first(name, eshm::role::master), slave(name, eshm::role::slave);
    eshm::bus master = std::move(first);
    CHECK(first.handle() == nullptr);
    {
        eshm::claim place = master.claim(100);
        EQUAL(place.size(), 100);
        std::memcpy(place.data(), "given up", 8);
    }
    {
        std::optional<eshm::claim> place = master.try_claim(100);
        CHECK(place.has_value());
        std::memcpy(place->data(), "sent", 4);
        place->commit(4);
    }
    {
        eshm::peek kept = slave.peek();
        CHECK(kept.bytes().text() == "sent");
        EQUAL(kept.id().number, 0);
    }
    std::optional<eshm::peek> next = slave.try_peek();
    CHECK(next && next->bytes().text() == "sent");
    next->release();
    CHECK(!slave.try_read(eshm::place()).has_value());
}

static void many_at_once()
{
    pair both(eshm::options(bus_name("many")).frames(256));
    std::vector<std::string> out;
    for (int number = 0; number < 200; number++) {
        out.push_back("message " + std::to_string(number));
    }
    EQUAL(both.master.write_many(out), 200);
    EQUAL(both.master.try_write_many(std::vector<std::string>()), 0);
    eshm::batch in(4096, 150);
    EQUAL(both.slave.read_many(in), 150);
    EQUAL(in.size(), 150);
    CHECK(in[149].text() == "message 149");
    EQUAL(both.slave.try_read_many(in), 50);
    int number = 150;
    for (eshm::view message : in) {
        CHECK(message.text() == "message " + std::to_string(number++));
    }
    EQUAL(both.slave.try_read_many(in), 0);
    CHECK(in.empty());
    CHECK(thrown([&] { both.slave.read_many(in, milliseconds(1)); }) == eshm::errc::timeout);
    // As many as there is room for; then none.
    std::vector<std::string> more(2, "more");
    EQUAL(both.master.write_many(out), 200);
    EQUAL(both.master.try_write_many(out), 55);
    EQUAL(both.master.try_write_many(out), 0);
    EQUAL(both.slave.try_read_many(in), 150);
    std::error_code trouble;
    EQUAL(both.master.write_many(out, milliseconds(20), trouble), 150);
    CHECK(!trouble);
    EQUAL(both.master.write_many(out, milliseconds(2), trouble), 0);
    CHECK(trouble == eshm::errc::timeout);
    while (both.slave.try_read_many(in) > 0) {
    }
    // One that is too long keeps back what is behind it, and is found when it comes first.
    std::vector<std::string> mixed = {"a", std::string(100000, 'x'), "b"};
    EQUAL(both.master.write_many(mixed), 1);
    mixed.erase(mixed.begin());
    CHECK(thrown([&] { both.master.write_many(mixed); }) == eshm::errc::too_long);
    EQUAL(both.master.write_many({"short", eshm::view("longer", 6)}), 2);
    eshm::batch narrow(5, 10);
    EQUAL(both.slave.read_many(narrow), 1);
    EQUAL(both.slave.read_many(narrow), 1);
    CHECK(narrow[0].text() == "short");
    CHECK(thrown([&] { both.slave.read_many(narrow); }) == eshm::errc::too_long);
    EQUAL(both.slave.read().size(), 6);
}

static void *write_thousand(void *with)
{
    std::vector<std::uint64_t> numbers(1000);
    std::vector<eshm::view> views;
    for (std::uint64_t number = 0; number < 1000; number++) {
        numbers[number] = number;
        views.emplace_back(&numbers[number], sizeof number);
    }
    // Sixteen times as many as there is room for.
    EQUAL(static_cast<eshm::bus *>(with)->write_many(views), 1000);
    return nullptr;
}

static void many_wait_for_room()
{
    pair both(eshm::options(bus_name("many-wait")).frames(64));
    std::thread writer(write_thousand, &both.master);
    EVENTUALLY(both.master.stats().master_to_slave.writer_parks > 0);
    for (std::uint64_t number = 0; number < 1000; number++) {
        EQUAL(both.slave.read_value<std::uint64_t>(std::chrono::seconds(20)), number);
    }
    writer.join();
}

static void shapes()
{
    std::string name = bus_name("shapes");
    eshm::geometry out = {256, 1024, eshm::overflow::overwrite};
    eshm::options made(name);
    made.direction(eshm::direction::master_to_slave, out).role(eshm::role::master);
    eshm::bus master(made);
    CHECK(master.geometry(eshm::direction::master_to_slave).frame_size == 256);
    CHECK(master.geometry(eshm::direction::slave_to_master).frames == 8192);
    // What is not asked for is taken as found.
    eshm::options slave(name);
    slave.role(eshm::role::slave);
    eshm::bus(slave).leave();
    CHECK(thrown([&] { eshm::bus(slave.frames(1024)); }) == eshm::errc::no_segment);
    CHECK(std::string(eshm_last_error()).find("frames 8192, not 1024") != std::string::npos);
    slave = eshm::options(name);
    slave.role(eshm::role::slave).direction(eshm::direction::master_to_slave, out);
    eshm::bus(slave).leave();
    slave.overflow(eshm::overflow::refuse);
    CHECK(thrown([&] { eshm::bus{slave}; }) == eshm::errc::no_segment);
    CHECK(std::string(eshm_last_error()).find("overflow") != std::string::npos);
    // One property alone, on a bus that differs from the default in the others.
    std::string other = bus_name("shapes-2");
    eshm::bus wide(eshm::options(other).frame_size(128).overflow(eshm::overflow::overwrite));
    eshm::bus(eshm::options(other).role(eshm::role::slave).frames(8192)).leave();
    eshm::bus(eshm::options(other).role(eshm::role::slave).frame_size(128)).leave();
}

// What each option becomes; what it does is tested where it is done, and in opening.c.
static void options()
{
    using namespace eshm;
    eshm::options all("a name");
    ESHMOptions raw = all.raw(), usual = eshm_default_options("a name");
    CHECK(strcmp(raw.name, "a name") == 0 && raw.directory == nullptr && raw.trusted_count == 0);
    EQUAL(raw.master_to_slave.overflow, ESHM_OVERFLOW_AS_FOUND);
    EQUAL(raw.slave_to_master.overflow, ESHM_OVERFLOW_AS_FOUND);
    // Nothing else differs from what C programs begin with.
    raw.master_to_slave = usual.master_to_slave;
    raw.slave_to_master = usual.slave_to_master;
    raw.name = usual.name;
    raw.trusted_users = usual.trusted_users;
    CHECK(memcmp(&raw, &usual, sizeof raw) == 0);
    all.role(role::slave).takeover(takeover::hung).frame_size(128).frames(16).directory("/tmp");
    all.overflow(overflow::overwrite).beat_interval(std::chrono::seconds(1)).mode(0640);
    all.stale_after(milliseconds(7)).open_timeout(milliseconds(8)).reconnect_attempts(9);
    all.on_disconnect(disconnect::immediately).reconnect_interval(milliseconds(10));
    all.reconnect_wait(milliseconds(11)).wait(wait::park).background(false).prefault(true);
    all.cleanup(cleanup::never).trust_user(12).trust_user(13).lock_memory(true);
    all.huge_pages(true).guard_sigbus(true);
    raw = all.raw();
    CHECK(raw.role == ESHM_ROLE_SLAVE && raw.takeover == ESHM_TAKEOVER_HUNG);
    CHECK(raw.slave_to_master.frame_size == 128 && raw.master_to_slave.frames == 16);
    CHECK(raw.slave_to_master.overflow == ESHM_OVERFLOW_OVERWRITE);
    CHECK(strcmp(raw.directory, "/tmp") == 0 && raw.mode == 0640);
    CHECK(raw.heartbeat_interval_us == 1000000 && raw.stale_threshold_ms == 7);
    CHECK(raw.open_timeout_ms == 8 && raw.max_reconnect_attempts == 9);
    CHECK(raw.disconnect_behavior == ESHM_DISCONNECT_IMMEDIATELY && raw.wait == ESHM_WAIT_PARK);
    CHECK(raw.reconnect_retry_interval_ms == 10 && raw.reconnect_wait_ms == 11);
    CHECK(!raw.use_threads && raw.prefault && raw.lock_memory && raw.huge_pages);
    CHECK(raw.guard_sigbus && raw.cleanup == ESHM_CLEANUP_NEVER && raw.trusted_count == 2);
    CHECK(raw.trusted_users[0] == 12 && raw.trusted_users[1] == 13);
    // A copy has texts of its own.
    eshm::options copy = all;
    CHECK(copy.raw().directory != raw.directory && copy.raw().trusted_users != raw.trusted_users);
}

static void skipping()
{
    pair both(bus_name("skip"));
    for (std::uint64_t number = 0; number < 5; number++) {
        both.master.write_value(number);
    }
    EQUAL(both.slave.skip_to_latest(), 4);
    EQUAL(both.slave.read_value<std::uint64_t>(), 4);
    EQUAL(both.slave.last_id()->number, 4);
}

static void looking_on()
{
    std::string name = bus_name("tap");
    eshm::bus master(name, eshm::role::master);
    eshm::tap tap(eshm::options(name), eshm::direction::master_to_slave);
    std::byte buffer[16];
    CHECK(!tap.read(eshm::place(buffer, 16), eshm::no_wait));
    master.write("seen");
    auto message = tap.read(eshm::place(buffer, 16));
    CHECK(message && message->size == 4 && message->id.number == 0);
}

struct reading {
    std::uint64_t time_ns;
    double value;
};

static void schemas()
{
    eshm::options options(bus_name("schemas"));
    options.role(eshm::role::master).writes(eshm::schema_of<reading>("telemetry", 3));
    eshm::bus master(options);
    eshm::options other(bus_name("schemas"));
    other.role(eshm::role::slave).reads(eshm::schema(std::string("telemetry").c_str(), 4));
    bool thrown = false;
    try {
        eshm::bus slave(other);
    } catch (const eshm::error &trouble) {
        thrown = true;
        CHECK(trouble.code() == eshm::errc::no_segment);
        std::string text = trouble.what();
        CHECK(text.find("telemetry:3 (16 bytes)") != std::string::npos);
        CHECK(text.find("telemetry:4") != std::string::npos);
    }
    CHECK(thrown);
    eshm::bus slave(other.reads(eshm::schema("telemetry", 3)));
    master.write_value(reading{1, 0.5});
    reading value = slave.read_value<reading>();
    CHECK(value.time_ns == 1 && value.value == 0.5);
}

int main(int argc, char **argv)
{
    const test tests[] = {
        {"text_and_values", text_and_values},
        {"values", values},
        {"failures", failures},
        {"in_place", in_place},
        {"many_at_once", many_at_once},
        {"many_wait_for_room", many_wait_for_room},
        {"shapes", shapes},
        {"options", options},
        {"skipping", skipping},
        {"looking_on", looking_on},
        {"schemas", schemas},
    };
    return RUN(tests, argc, argv);
}
