/*
 * eshm.hpp - eshm for C++17: what the Rust library does, with its names and its defaults, with
 * owners, views and exceptions.
 *
 *     eshm::bus bus("telemetry", eshm::role::master);
 *     bus.write("hello");                              // waits for room; throws if it fails
 *
 *     std::error_code trouble;
 *     bus.write("hello", eshm::no_wait, trouble);      // never throws
 *     if (trouble == eshm::errc::full) ...
 *
 * The defaults make a pair of programs right that may be started in either order, and started again
 * at any time: a slave waits for a master to make the bus, a write waits for room for as long as it
 * takes, a read goes on when its peer comes back, a living owner of a role is left alone, and a bus
 * stays as long as something in it is unread, also when an exception ends the program. The options
 * say otherwise. (A bus that is opened with an ESHMConfig has the defaults of ESHM 1.0.)
 *
 * Calls throw eshm::error when they fail; those that carry messages have a second form that does not,
 * with a std::error_code as its last parameter. A call named try_... does not wait, and says by what
 * it returns that there was no room, or nothing to read.
 *
 * Everything here is inline and calls eshm.h; link with -leshm. Objects own what they stand for and
 * can be moved, not copied. What eshm.h says of threads holds here too.
 */
#ifndef ESHM_HPP
#define ESHM_HPP

#include "eshm.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace eshm {

/** The codes of eshm.h that programs tell apart. */
enum class errc {
    invalid = ESHM_ERROR_INVALID_PARAM,
    system = ESHM_ERROR_SHM_CREATE,        /**< the system refused: memory, descriptors */
    no_segment = ESHM_ERROR_SHM_ATTACH,    /**< there is no bus, or none that can be used */
    lost = ESHM_ERROR_SHM_ATTACH,          /**< the same of one that was open: open it again */
    no_data = ESHM_ERROR_NO_DATA,
    timeout = ESHM_ERROR_TIMEOUT,
    peer_gone = ESHM_ERROR_MASTER_STALE,   /**< only with another on_disconnect than the default */
    full = ESHM_ERROR_BUFFER_FULL,
    too_long = ESHM_ERROR_BUFFER_TOO_SMALL,/**< for the bus, for the buffer */
    wrong_size = ESHM_ERROR_BUFFER_TOO_SMALL, /**< the message is not as long as the value */
    not_open = ESHM_ERROR_NOT_INITIALIZED,
    role_taken = ESHM_ERROR_ROLE_MISMATCH, /**< when opening: what() names the owner */
    replaced = ESHM_ERROR_ROLE_MISMATCH    /**< afterwards: another process has the role now */
};

/** The category of error codes from eshm. */
inline const std::error_category &category() noexcept
{
    class texts : public std::error_category {
        const char *name() const noexcept override { return "eshm"; }
        std::string message(int code) const override { return eshm_error_string(code); }
    };
    static const texts all;
    return all;
}

inline std::error_code make_error_code(errc code) noexcept
{
    return std::error_code(static_cast<int>(code), category());
}

} // namespace eshm

template <> struct std::is_error_code_enum<eshm::errc> : std::true_type {};

namespace eshm {

/** What the calls without an error_code throw; what() is the full text of eshm_last_error(). */
class error : public std::system_error {
public:
    explicit error(int code) : std::system_error(code, category(), eshm_last_error()) {}
};

enum class role {
    master = ESHM_ROLE_MASTER,
    slave = ESHM_ROLE_SLAVE,
    automatic = ESHM_ROLE_AUTO             /**< master if nobody is, else slave */
};

enum class direction {
    master_to_slave = ESHM_MASTER_TO_SLAVE,
    slave_to_master = ESHM_SLAVE_TO_MASTER
};

/** What happens when a direction is full. */
enum class overflow {
    refuse = ESHM_OVERFLOW_REFUSE,         /**< the writer waits or is refused; nothing is lost */
    overwrite = ESHM_OVERFLOW_OVERWRITE    /**< the oldest make room; the reader learns how many */
};

/** What to do when the role asked for is held by somebody. */
enum class takeover {
    never = ESHM_TAKEOVER_NEVER,           /**< fail, and name the owner */
    hung = ESHM_TAKEOVER_HUNG,             /**< replace it if its heartbeat stands still */
    always = ESHM_TAKEOVER_ALWAYS          /**< replace it whatever its state */
};

/** What reading does when the peer is gone and nothing it sent is left. */
enum class disconnect {
    immediately = ESHM_DISCONNECT_IMMEDIATELY, /**< errc::peer_gone at once */
    on_timeout = ESHM_DISCONNECT_ON_TIMEOUT,   /**< that, once the reconnect limits are used up */
    never = ESHM_DISCONNECT_NEVER              /**< wait as for a silent peer; one may come back */
};

/** How calls wait. */
enum class wait {
    adaptive = ESHM_WAIT_ADAPTIVE,         /**< spin for a short while, then sleep */
    spin = ESHM_WAIT_SPIN,                 /**< never sleep: for a thread that has a core of its own */
    park = ESHM_WAIT_PARK                  /**< sleep at once */
};

/** When a bus is removed, if both sides have left it; the more careful of two wishes counts. A
 * process that died has not left. One whose objects are destroyed by an exception has. */
enum class cleanup {
    when_read = ESHM_CLEANUP_WHEN_READ,    /**< when nothing is unread */
    always = ESHM_CLEANUP_ALWAYS,          /**< whatever is unread */
    never = ESHM_CLEANUP_NEVER             /**< only by eshm_remove() or by hand */
};

using std::chrono::milliseconds;

/** How long to wait: any duration, rounded up to milliseconds; from 49 days on, for ever. */
class timeout {
public:
    template <class Rep, class Period>
    constexpr timeout(std::chrono::duration<Rep, Period> time) noexcept : ms_(rounded(time)) {}
    /** As the calls of C take it. */
    constexpr std::uint32_t count() const noexcept { return ms_; }
    friend constexpr bool operator==(timeout left, timeout right) noexcept
    {
        return left.ms_ == right.ms_;
    }

private:
    template <class Rep, class Period>
    static constexpr std::uint32_t rounded(std::chrono::duration<Rep, Period> time) noexcept
    {
        const double ms = std::chrono::duration<double, std::milli>(time).count();
        if (!(ms > 0)) {
            return 0;
        }
        if (ms >= ESHM_WAIT_FOREVER) {
            return ESHM_WAIT_FOREVER;
        }
        const auto whole = static_cast<std::uint32_t>(ms);
        return whole < ms ? whole + 1 : whole;
    }
    std::uint32_t ms_;
};
/** Do not wait. */
inline constexpr timeout no_wait{milliseconds(0)};
/** Wait for as long as it takes. */
inline constexpr timeout forever{milliseconds(ESHM_WAIT_FOREVER)};

namespace detail {
/** Bytes of it can be copied, and mean the same to another process. */
template <class T>
inline constexpr bool is_value = std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>
    && !std::is_member_pointer_v<T> && !std::is_same_v<T, std::string_view>;
} // namespace detail

/** Bytes that somebody else owns, to be read. */
class view {
public:
    constexpr view() noexcept = default;
    view(const void *data, std::size_t size) noexcept
        : data_(static_cast<const std::byte *>(data)), size_(size) {}
    view(std::string_view text) noexcept : view(text.data(), text.size()) {}
    view(const std::string &text) noexcept : view(text.data(), text.size()) {}
    view(const char *text) noexcept : view(std::string_view(text)) {}
    template <class T, class = std::enable_if_t<detail::is_value<T>>>
    view(const std::vector<T> &values) noexcept : view(values.data(), values.size() * sizeof(T)) {}
    template <class T, std::size_t N, class = std::enable_if_t<detail::is_value<T>>>
    view(const std::array<T, N> &values) noexcept : view(values.data(), N * sizeof(T)) {}

    const std::byte *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    const std::byte *begin() const noexcept { return data_; }
    const std::byte *end() const noexcept { return data_ + size_; }
    std::byte operator[](std::size_t index) const noexcept { return data_[index]; }
    std::string_view text() const noexcept
    {
        return std::string_view(reinterpret_cast<const char *>(data_), size_);
    }

private:
    const std::byte *data_ = nullptr;
    std::size_t size_ = 0;
};

/** Bytes that somebody else owns, to be written. */
class place {
public:
    constexpr place() noexcept = default;
    place(void *data, std::size_t size) noexcept
        : data_(static_cast<std::byte *>(data)), size_(size) {}
    template <class T, class = std::enable_if_t<detail::is_value<T>>>
    place(std::vector<T> &values) noexcept : place(values.data(), values.size() * sizeof(T)) {}
    template <class T, std::size_t N, class = std::enable_if_t<detail::is_value<T>>>
    place(std::array<T, N> &values) noexcept : place(values.data(), N * sizeof(T)) {}

    std::byte *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    std::byte *begin() const noexcept { return data_; }
    std::byte *end() const noexcept { return data_ + size_; }
    std::byte &operator[](std::size_t index) const noexcept { return data_[index]; }

private:
    std::byte *data_ = nullptr;
    std::size_t size_ = 0;
};

namespace detail {

inline void check(int code)
{
    if (code != ESHM_SUCCESS) {
        throw error(code);
    }
}

inline void set(std::error_code &trouble, int code) noexcept
{
    if (code == ESHM_SUCCESS) {
        trouble.clear();
    } else {
        trouble.assign(code, category());
    }
}

/** True for success, false for the one code that is no failure, else throws. */
inline bool unless(int code, int harmless)
{
    if (code != harmless) {
        check(code);
    }
    return code != harmless;
}

/** A pointer that is given to `close` once. */
template <class T, int (*close)(T *)> class owner {
public:
    owner() noexcept = default;
    explicit owner(T *raw) noexcept : raw_(raw) {}
    owner(owner &&other) noexcept : raw_(other.release()) {}
    owner &operator=(owner &&other) noexcept
    {
        owner before(std::exchange(raw_, other.release()));
        return *this;
    }
    ~owner()
    {
        if (raw_ != nullptr) {
            close(raw_);
        }
    }
    T *get() const noexcept { return raw_; }
    T *release() noexcept { return std::exchange(raw_, nullptr); }

private:
    T *raw_ = nullptr;
};

template <class T> T sized() noexcept
{
    T value{};
    value.struct_size = sizeof(T);
    return value;
}

} // namespace detail

/** The shape of one direction. */
struct geometry {
    std::uint32_t frame_size = 64; /**< bytes per frame: a multiple of 64 */
    std::uint64_t frames = 8192;   /**< frames of the ring: a power of two */
    eshm::overflow overflow = eshm::overflow::refuse;
};

/**
 * How to open a bus.
 *
 *     eshm::bus bus(eshm::options("telemetry").role(eshm::role::master).frames(1 << 16));
 *
 * Shapes are wishes when the bus is made and conditions when it is there; what is not asked for is
 * taken as found.
 */
class options {
public:
    /** All at their defaults. A name has 1 to 200 characters of `A-Z a-z 0-9 . _ - /`. */
    explicit options(std::string name) : name_(std::move(name)), raw_(eshm_default_options(nullptr))
    {
        raw_.master_to_slave.overflow = raw_.slave_to_master.overflow = ESHM_OVERFLOW_AS_FOUND;
    }

    /** Which end to be. Default: role::automatic. */
    options &role(eshm::role role)
    {
        raw_.role = static_cast<ESHMRole>(role);
        return *this;
    }
    /** What to do with a living or hung owner of the role. Default: takeover::never. */
    options &takeover(eshm::takeover takeover)
    {
        raw_.takeover = static_cast<ESHMTakeover>(takeover);
        return *this;
    }
    /** Bytes per frame, both directions. Default when creating: 64. */
    options &frame_size(std::uint32_t bytes)
    {
        raw_.master_to_slave.frame_size = raw_.slave_to_master.frame_size = bytes;
        return *this;
    }
    /** Frames per ring, both directions. Default when creating: 8192. */
    options &frames(std::uint64_t frames)
    {
        raw_.master_to_slave.frames = raw_.slave_to_master.frames = frames;
        return *this;
    }
    /** What happens when a ring is full, both directions. Default when creating: overflow::refuse. */
    options &overflow(eshm::overflow overflow)
    {
        raw_.master_to_slave.overflow = static_cast<ESHMOverflow>(overflow);
        raw_.slave_to_master.overflow = static_cast<ESHMOverflow>(overflow);
        return *this;
    }
    /** The whole shape of one direction. */
    options &direction(eshm::direction direction, const geometry &shape)
    {
        const bool is_out = direction == eshm::direction::master_to_slave;
        ESHMGeometry &asked = is_out ? raw_.master_to_slave : raw_.slave_to_master;
        asked.frames = shape.frames;
        asked.frame_size = shape.frame_size;
        asked.overflow = static_cast<ESHMOverflow>(shape.overflow);
        return *this;
    }
    /** How often this endpoint shows that it is alive. Default: 1 ms. */
    options &beat_interval(std::chrono::microseconds interval)
    {
        const auto most = static_cast<std::int64_t>(UINT32_MAX);
        const std::int64_t us = std::clamp<std::int64_t>(interval.count(), 1, most);
        raw_.heartbeat_interval_us = static_cast<std::uint32_t>(us);
        return *this;
    }
    /** How long the peer's heartbeat may stand still before it counts as hung. Default: 100 ms. */
    options &stale_after(timeout threshold)
    {
        raw_.stale_threshold_ms = threshold.count();
        return *this;
    }
    /** How long a slave waits for a master to make the bus. Default: for ever. */
    options &open_timeout(timeout time)
    {
        raw_.open_timeout_ms = time.count();
        return *this;
    }
    /** What reading does when the peer is gone. Default: disconnect::never. */
    options &on_disconnect(disconnect behaviour)
    {
        raw_.disconnect_behavior = static_cast<ESHMDisconnectBehavior>(behaviour);
        return *this;
    }
    /** How often a peer that is gone is looked for. Default: 100 ms. */
    options &reconnect_interval(timeout interval)
    {
        raw_.reconnect_retry_interval_ms = interval.count();
        return *this;
    }
    /** How often it is looked for before reading gives up; 0 means for ever. Default: 50. */
    options &reconnect_attempts(std::uint32_t attempts)
    {
        raw_.max_reconnect_attempts = attempts;
        return *this;
    }
    /** How long it is looked for before reading gives up; 0 means for ever. Default: 5 s. */
    options &reconnect_wait(timeout time)
    {
        raw_.reconnect_wait_ms = time.count();
        return *this;
    }
    /** How long reading waits if the call does not say. Default: 1 s. */
    options &read_timeout(timeout time)
    {
        read_timeout_ = time;
        return *this;
    }
    /** How long writing waits for room if the call does not say. Default: for ever. */
    options &write_timeout(timeout time)
    {
        write_timeout_ = time;
        return *this;
    }
    /** How calls wait. Default: wait::adaptive. */
    options &wait(eshm::wait wait)
    {
        raw_.wait = static_cast<ESHMWait>(wait);
        return *this;
    }
    /** Whether the background thread of this process beats for this endpoint. Without it every call
     * does, and a process that makes no calls looks hung. Default: on. */
    options &background(bool on)
    {
        raw_.use_threads = on;
        return *this;
    }
    /** When the bus is removed, once both sides have left. Default: cleanup::when_read. */
    options &cleanup(eshm::cleanup cleanup)
    {
        raw_.cleanup = static_cast<ESHMCleanup>(cleanup);
        return *this;
    }
    /** The permission bits of a bus that is made (default: 0600, this user only), and the most that
     * one found may have (default: what it has). */
    options &mode(std::uint32_t bits)
    {
        raw_.mode = bits;
        return *this;
    }
    /** Trusts the files of another user too, besides those of this one and of root. */
    options &trust_user(std::uint32_t uid)
    {
        trusted_.push_back(uid);
        return *this;
    }
    /** Touch every page when opening. Default: off. */
    options &prefault(bool on)
    {
        raw_.prefault = on;
        return *this;
    }
    /** Lock the segment into memory. Default: off. */
    options &lock_memory(bool on)
    {
        raw_.lock_memory = on;
        return *this;
    }
    /** Ask for huge pages. Default: off. */
    options &huge_pages(bool on)
    {
        raw_.huge_pages = on;
        return *this;
    }
    /** Survive a peer that truncates the file, by a handler of SIGBUS. Default: off. */
    options &guard_sigbus(bool on)
    {
        raw_.guard_sigbus = on;
        return *this;
    }
    /** What this side writes is this, by schema() or schema_of(). Default: not said. */
    options &writes(const ESHMSchema &what)
    {
        raw_.writes = what;
        written_ = text_of(what);
        return *this;
    }
    /** What this side reads must be this. Default: anything. */
    options &reads(const ESHMSchema &what)
    {
        raw_.reads = what;
        read_ = text_of(what);
        return *this;
    }
    /** Where the file is; a tmpfs. Default: /dev/shm. */
    options &directory(std::string path)
    {
        directory_ = std::move(path);
        return *this;
    }

    /** As eshm_open() takes them, for as long as this object is there and unchanged. */
    ESHMOptions raw() const noexcept
    {
        ESHMOptions raw = raw_;
        raw.name = name_.c_str();
        raw.directory = directory_ ? directory_->c_str() : nullptr;
        raw.trusted_users = trusted_.data();
        raw.trusted_count = trusted_.size();
        raw.writes.name = written_ ? written_->c_str() : nullptr;
        raw.reads.name = read_ ? read_->c_str() : nullptr;
        return raw;
    }

private:
    friend class bus;
    static std::optional<std::string> text_of(const ESHMSchema &what)
    {
        return what.name != nullptr ? std::optional<std::string>(what.name) : std::nullopt;
    }
    std::string name_;
    std::optional<std::string> directory_;
    std::vector<std::uint32_t> trusted_;
    std::optional<std::string> written_;
    std::optional<std::string> read_;
    ESHMOptions raw_;
    timeout read_timeout_ = milliseconds(1000);
    timeout write_timeout_ = forever;
};

/** A place in the ring for one message. Given up when destroyed without commit(). */
class claim {
public:
    claim(claim &&other) noexcept
        : handle_(std::exchange(other.handle_, nullptr)), place_(other.place_) {}
    claim &operator=(claim &&) = delete;
    ~claim()
    {
        if (handle_ != nullptr) {
            eshm_abort(handle_);
        }
    }
    std::byte *data() const noexcept { return place_.data(); }
    std::size_t size() const noexcept { return place_.size(); }
    std::byte &operator[](std::size_t index) const noexcept { return place_[index]; }
    eshm::place bytes() const noexcept { return place_; }

    /** Sends the whole place. */
    void commit() { commit(place_.size()); }
    /** Sends its first bytes. */
    void commit(std::size_t size)
    {
        detail::check(eshm_commit(handle_, size));
        handle_ = nullptr;
    }

private:
    friend class bus;
    claim(ESHMHandle *handle, void *data, std::size_t size) noexcept
        : handle_(handle), place_(data, size) {}
    ESHMHandle *handle_;
    place place_;
};

/** A message where it lies. It stays the next one when destroyed without release(). */
class peek {
public:
    peek(peek &&other) noexcept
        : handle_(std::exchange(other.handle_, nullptr)), bytes_(other.bytes_), about_(other.about_)
    {}
    peek &operator=(peek &&) = delete;
    ~peek()
    {
        if (handle_ != nullptr) {
            eshm_keep(handle_);
        }
    }
    view bytes() const noexcept { return bytes_; }
    ESHMMessageId id() const noexcept { return about_.id; }
    std::uint64_t lost() const noexcept { return about_.lost; }

    /** Consumes the message; its bytes may not be looked at any more. */
    void release()
    {
        detail::check(eshm_release(handle_));
        handle_ = nullptr;
    }

private:
    friend class bus;
    peek(ESHMHandle *handle, ESHMView bytes, const ESHMMessage &about) noexcept
        : handle_(handle), bytes_(bytes.data, bytes.size), about_(about) {}
    ESHMHandle *handle_;
    view bytes_;
    ESHMMessage about_;
};

/** Room for the messages of one bus::read_many(). Fill it again and again; nothing is allocated after
 * it was made. */
class batch {
public:
    /** Room for up to `messages` messages with up to `bytes` bytes together. */
    batch(std::size_t bytes, std::size_t messages) : bytes_(bytes), raw_(messages)
    {
        views_.reserve(messages);
    }
    batch(batch &&) = default;
    batch &operator=(batch &&) = default;
    std::size_t size() const noexcept { return views_.size(); }
    bool empty() const noexcept { return views_.empty(); }
    view operator[](std::size_t index) const noexcept { return views_[index]; }
    const view *begin() const noexcept { return views_.data(); }
    const view *end() const noexcept { return views_.data() + views_.size(); }

private:
    friend class bus;
    void take(std::size_t count) noexcept
    {
        views_.clear();
        for (std::size_t index = 0; index < count; index++) {
            views_.emplace_back(raw_[index].data, raw_[index].size);
        }
    }
    std::vector<std::byte> bytes_;
    std::vector<ESHMView> raw_;
    std::vector<view> views_;
};

/** What the messages of one direction are, for options::writes() and reads(): a name and a version.
 * The text is looked at while a bus or a tap is opened only. */
inline ESHMSchema schema(const char *name, std::uint32_t version) noexcept
{
    return eshm_schema(name, version);
}

/** The same of messages that are values of one type, with its size. */
template <class T, class = std::enable_if_t<std::is_trivially_copyable_v<T>>>
ESHMSchema schema_of(const char *name, std::uint32_t version) noexcept
{
    ESHMSchema schema = eshm_schema(name, version);
    schema.size = sizeof(T);
    return schema;
}

/** One end of a bus. */
class bus {
public:
    /** With the defaults of eshm::options: a role that somebody holds is refused. */
    explicit bus(const std::string &name, eshm::role role = eshm::role::automatic)
        : bus(eshm::options(name).role(role)) {}
    explicit bus(const eshm::options &options)
        : own_(opened(options.raw())), read_timeout_(options.read_timeout_),
          write_timeout_(options.write_timeout_) {}
    /** As eshm_open(). */
    explicit bus(const ESHMOptions &options) : own_(opened(options)) {}
    /** As eshm_init(), with all that ESHM 1.0 does: a master takes the role from whoever has it, and
     * the last to leave removes the bus, also with what is unread. */
    explicit bus(const ESHMConfig &config) : own_(made(eshm_init(&config))) {}

    /** As the constructor, without an exception. */
    static std::optional<bus> open(const eshm::options &options, std::error_code &trouble) noexcept
    {
        std::optional<bus> made = open(options.raw(), trouble);
        if (made) {
            made->read_timeout_ = options.read_timeout_;
            made->write_timeout_ = options.write_timeout_;
        }
        return made;
    }
    static std::optional<bus> open(const ESHMOptions &options, std::error_code &trouble) noexcept
    {
        ESHMHandle *handle = eshm_open(&options);
        detail::set(trouble, handle != nullptr ? ESHM_SUCCESS : eshm_last_error_code());
        return handle != nullptr ? std::optional<bus>(bus(handle)) : std::nullopt;
    }

    /** Leaves the bus, as the destructor does. */
    void leave() { detail::check(eshm_destroy(own_.release())); }

    /** For what is not offered here. */
    ESHMHandle *handle() const noexcept { return own_.get(); }

    /* ---- writing ---- */

    /** Sends one message; waits for room as long as the write timeout says, which is for ever unless
     * the options say otherwise. */
    void write(view bytes) { write(bytes, write_timeout_); }
    void write(view bytes, timeout wait) { detail::check(put(bytes, wait)); }
    void write(view bytes, std::error_code &trouble) noexcept
    {
        write(bytes, write_timeout_, trouble);
    }
    void write(view bytes, timeout wait, std::error_code &trouble) noexcept
    {
        detail::set(trouble, put(bytes, wait));
    }
    /** Sends one message if there is room now; says whether. */
    bool try_write(view bytes) { return detail::unless(put(bytes, no_wait), ESHM_ERROR_BUFFER_FULL); }

    /** Sends one value as it lies in memory. */
    template <class T> void write_value(const T &value) { write(bytes_of(value)); }
    template <class T> void write_value(const T &value, timeout wait)
    {
        write(bytes_of(value), wait);
    }
    template <class T> void write_value(const T &value, std::error_code &trouble) noexcept
    {
        write(bytes_of(value), trouble);
    }
    template <class T>
    void write_value(const T &value, timeout wait, std::error_code &trouble) noexcept
    {
        write(bytes_of(value), wait, trouble);
    }
    template <class T> bool try_write_value(const T &value) { return try_write(bytes_of(value)); }

    /** Sends the messages of a range in order, waiting for room as long as the write timeout says, all
     * in all. Returns how many it sent: all, unless that time ran out or one was refused. Fails only
     * if it sent none. */
    template <class Range> std::size_t write_many(const Range &messages)
    {
        return write_many(messages, write_timeout_);
    }
    template <class Range> std::size_t write_many(const Range &messages, timeout wait)
    {
        int code = ESHM_SUCCESS;
        const std::size_t written = put_many(std::begin(messages), std::end(messages), wait, code);
        detail::check(written > 0 ? ESHM_SUCCESS : code);
        return written;
    }
    template <class Range>
    std::size_t write_many(const Range &messages, timeout wait, std::error_code &trouble) noexcept
    {
        int code = ESHM_SUCCESS;
        const std::size_t written = put_many(std::begin(messages), std::end(messages), wait, code);
        detail::set(trouble, written > 0 ? ESHM_SUCCESS : code);
        return written;
    }
    std::size_t write_many(std::initializer_list<view> messages)
    {
        return write_many<std::initializer_list<view>>(messages);
    }
    /** Sends as many of the messages as there is room for now; returns how many. */
    template <class Range> std::size_t try_write_many(const Range &messages)
    {
        int code = ESHM_SUCCESS;
        const std::size_t written = put_many(std::begin(messages), std::end(messages), no_wait, code);
        if (written == 0) {
            detail::unless(code, ESHM_ERROR_BUFFER_FULL);
        }
        return written;
    }

    /** A place in the ring for a message of up to `size` bytes; waits for room as write() does. */
    eshm::claim claim(std::size_t size) { return claim(size, write_timeout_); }
    eshm::claim claim(std::size_t size, timeout wait)
    {
        void *data = nullptr;
        detail::check(eshm_claim(handle(), size, &data, wait.count()));
        return eshm::claim(handle(), data, size);
    }
    std::optional<eshm::claim> claim(std::size_t size, timeout wait, std::error_code &trouble) noexcept
    {
        void *data = nullptr;
        const int code = eshm_claim(handle(), size, &data, wait.count());
        detail::set(trouble, code);
        if (code != ESHM_SUCCESS) {
            return std::nullopt;
        }
        return eshm::claim(handle(), data, size);
    }
    /** A place in the ring, if there is room now. */
    std::optional<eshm::claim> try_claim(std::size_t size)
    {
        void *data = nullptr;
        if (!detail::unless(eshm_claim(handle(), size, &data, 0), ESHM_ERROR_BUFFER_FULL)) {
            return std::nullopt;
        }
        return eshm::claim(handle(), data, size);
    }

    /** The longest message that can be written. */
    std::size_t max_message() const
    {
        std::size_t size = 0;
        detail::check(eshm_max_message(handle(), &size));
        return size;
    }
    /** The last message committed by this role, now or before a restart: it need not be sent again. */
    std::optional<ESHMMessageId> last_committed() const
    {
        ESHMMessageId id = {0, 0};
        return when(eshm_last_committed(handle(), &id), id);
    }

    /* ---- reading ---- */

    /** Receives one message; its length is returned. Waits as long as the read timeout says, which is
     * a second unless the options say otherwise; errc::timeout then, also while the peer is gone. */
    std::size_t read(place buffer) { return read(buffer, read_timeout_); }
    std::size_t read(place buffer, timeout wait)
    {
        std::size_t size = 0;
        detail::check(get(buffer, wait, size));
        return size;
    }
    std::size_t read(place buffer, std::error_code &trouble) noexcept
    {
        return read(buffer, read_timeout_, trouble);
    }
    std::size_t read(place buffer, timeout wait, std::error_code &trouble) noexcept
    {
        std::size_t size = 0;
        detail::set(trouble, get(buffer, wait, size));
        return size;
    }
    /** Receives one message if one is there. */
    std::optional<std::size_t> try_read(place buffer)
    {
        std::size_t size = 0;
        return when(get(buffer, no_wait, size), size);
    }
    /** Receives one message, however long it is. */
    std::vector<std::byte> read() { return read(read_timeout_); }
    std::vector<std::byte> read(timeout wait)
    {
        std::vector<std::byte> bytes;
        ESHMMessage about = detail::sized<ESHMMessage>();
        int code = eshm_read_message(handle(), nullptr, 0, &about, wait.count());
        while (code == ESHM_ERROR_BUFFER_TOO_SMALL) {
            bytes.resize(about.size);
            code = eshm_read_message(handle(), bytes.data(), bytes.size(), &about, wait.count());
        }
        detail::check(code);
        bytes.resize(about.size);
        return bytes;
    }

    /** Receives one message as a value. One of another length gives errc::wrong_size, and stays. */
    template <class T> T read_value() { return read_value<T>(read_timeout_); }
    template <class T> T read_value(timeout wait)
    {
        T value = blank<T>();
        detail::check(get_value(value, wait));
        return value;
    }
    template <class T> std::optional<T> read_value(std::error_code &trouble) noexcept
    {
        return read_value<T>(read_timeout_, trouble);
    }
    template <class T> std::optional<T> read_value(timeout wait, std::error_code &trouble) noexcept
    {
        T value = blank<T>();
        const int code = get_value(value, wait);
        detail::set(trouble, code);
        return code == ESHM_SUCCESS ? std::optional<T>(value) : std::nullopt;
    }
    /** Receives one message as a value, if one is there. */
    template <class T> std::optional<T> try_read_value()
    {
        T value = blank<T>();
        return when(get_value(value, no_wait), value);
    }

    /** Receives as many messages as are waiting and fit into the batch, in place of what was in it;
     * waits for the first as read() does. Returns how many. */
    std::size_t read_many(batch &messages) { return read_many(messages, read_timeout_); }
    std::size_t read_many(batch &messages, timeout wait)
    {
        detail::check(fill(messages, wait));
        return messages.size();
    }
    std::size_t read_many(batch &messages, timeout wait, std::error_code &trouble) noexcept
    {
        detail::set(trouble, fill(messages, wait));
        return messages.size();
    }
    /** Receives what is waiting; returns how many messages that was. */
    std::size_t try_read_many(batch &messages)
    {
        detail::unless(fill(messages, no_wait), ESHM_ERROR_NO_DATA);
        return messages.size();
    }

    /** The next message where it lies; waits for it as read() does. */
    eshm::peek peek() { return peek(read_timeout_); }
    eshm::peek peek(timeout wait)
    {
        ESHMView bytes = {nullptr, 0};
        ESHMMessage about = detail::sized<ESHMMessage>();
        detail::check(eshm_peek(handle(), &bytes, &about, wait.count()));
        return eshm::peek(handle(), bytes, about);
    }
    std::optional<eshm::peek> peek(timeout wait, std::error_code &trouble) noexcept
    {
        ESHMView bytes = {nullptr, 0};
        ESHMMessage about = detail::sized<ESHMMessage>();
        const int code = eshm_peek(handle(), &bytes, &about, wait.count());
        detail::set(trouble, code);
        if (code != ESHM_SUCCESS) {
            return std::nullopt;
        }
        return eshm::peek(handle(), bytes, about);
    }
    /** The next message where it lies, if one is there. */
    std::optional<eshm::peek> try_peek()
    {
        std::error_code trouble;
        std::optional<eshm::peek> next = peek(no_wait, trouble);
        detail::unless(trouble.value(), ESHM_ERROR_NO_DATA);
        return next;
    }

    /** The length of the message that is next, if one is there. */
    std::optional<std::size_t> next_len()
    {
        std::size_t size = 0;
        return when(eshm_next_size(handle(), &size), size);
    }
    /** Goes to the newest message, which is read next; returns how many were passed over. */
    std::uint64_t skip_to_latest()
    {
        std::uint64_t skipped = 0;
        detail::check(eshm_skip_to_latest(handle(), &skipped));
        return skipped;
    }
    /** The message that this object, or an earlier owner of its role, read last. */
    std::optional<ESHMMessageId> last_id() const
    {
        ESHMMessageId id = {0, 0};
        return when(eshm_last_read(handle(), &id), id);
    }
    /** Messages that were overwritten before this object came to them. */
    std::uint64_t lost() const
    {
        std::uint64_t lost = 0;
        detail::check(eshm_lost(handle(), &lost));
        return lost;
    }

    /* ---- the bus and the peer ---- */

    eshm::role role() const
    {
        ESHMRole role = ESHM_ROLE_AUTO;
        detail::check(eshm_get_role(handle(), &role));
        return static_cast<eshm::role>(role);
    }
    eshm::geometry geometry(eshm::direction direction) const
    {
        ESHMGeometry found = {0, 0, ESHM_OVERFLOW_REFUSE};
        const auto which = static_cast<ESHMDirection>(direction);
        detail::check(eshm_get_geometry(handle(), which, &found));
        return {found.frame_size, found.frames, static_cast<eshm::overflow>(found.overflow)};
    }
    bool is_peer_alive() const
    {
        bool alive = false;
        detail::check(eshm_check_remote_alive(handle(), &alive));
        return alive;
    }
    ESHMRoleState peer() const
    {
        ESHMPeer peer = detail::sized<ESHMPeer>();
        detail::check(eshm_get_peer(handle(), &peer));
        return peer.peer;
    }
    /** Waits for a living peer; says whether there is one. */
    bool wait_for_peer(timeout wait) const
    {
        const int none = wait == no_wait ? ESHM_ERROR_NO_DATA : ESHM_ERROR_TIMEOUT;
        return detail::unless(eshm_wait_for_peer(handle(), wait.count()), none);
    }
    /** One heartbeat by hand, for a bus without the background thread. */
    void beat() const { detail::check(eshm_update_heartbeat(handle())); }
    std::uint32_t refused_wishes() const { return eshm_refused_wishes(handle()); }
    ESHMStatsEx stats() const
    {
        ESHMStatsEx stats = detail::sized<ESHMStatsEx>();
        detail::check(eshm_get_stats_ex(handle(), &stats));
        return stats;
    }

private:
    explicit bus(ESHMHandle *handle) noexcept : own_(handle) {}
    static ESHMHandle *made(ESHMHandle *handle)
    {
        if (handle == nullptr) {
            throw error(eshm_last_error_code());
        }
        return handle;
    }
    static ESHMHandle *opened(const ESHMOptions &options) { return made(eshm_open(&options)); }

    int put(view bytes, timeout wait) const noexcept
    {
        return eshm_write_ex(handle(), bytes.data(), bytes.size(), nullptr, wait.count());
    }
    int get(place buffer, timeout wait, std::size_t &size) const noexcept
    {
        return eshm_read_ex(handle(), buffer.data(), buffer.size(), &size, wait.count());
    }
    template <class T> int get_value(T &value, timeout wait) const noexcept
    {
        return eshm_read_exact(handle(), &value, sizeof(T), nullptr, wait.count());
    }
    int fill(batch &messages, timeout wait) const noexcept
    {
        std::size_t count = 0;
        const int code = eshm_read_many(handle(), messages.bytes_.data(), messages.bytes_.size(),
                                        messages.raw_.data(), messages.raw_.size(), &count,
                                        wait.count());
        messages.take(count);
        return code;
    }
    /** Writes in parts that need no memory; how many of all were written. */
    template <class Iterator>
    std::size_t put_many(Iterator at, Iterator end, timeout wait, int &code) const
    {
        constexpr std::size_t most = 64;
        const bool is_limited = !(wait == no_wait) && !(wait == forever);
        const auto until = std::chrono::steady_clock::now() + milliseconds(wait.count());
        std::size_t done = 0;
        while (at != end) {
            ESHMView part[most];
            std::size_t count = 0, written = 0;
            for (; at != end && count < most; ++at, ++count) {
                const view bytes = *at;
                part[count] = {bytes.data(), bytes.size()};
            }
            code = eshm_write_many_ex(handle(), part, count, &written, wait.count());
            done += written;
            if (written < count) {
                break;
            }
            if (is_limited) {
                wait = timeout(until - std::chrono::steady_clock::now());
            }
        }
        return done;
    }

    template <class T> static view bytes_of(const T &value) noexcept
    {
        static_assert(detail::is_value<T> && !std::is_same_v<T, view>,
                      "only the bytes of the value itself are sent, so it must be all of it");
        return view(&value, sizeof(T));
    }
    /** A value to read into. */
    template <class T> static T blank() noexcept
    {
        static_assert(detail::is_value<T> && !std::is_same_v<T, view> && !std::is_same_v<T, bool>,
                      "any bytes may come, so they must be a value of the type");
        return T{};
    }
    /** What was got, unless nothing was there. */
    template <class T> static std::optional<T> when(int code, const T &got)
    {
        return detail::unless(code, ESHM_ERROR_NO_DATA) ? std::optional<T>(got) : std::nullopt;
    }

    detail::owner<ESHMHandle, eshm_destroy> own_;
    timeout read_timeout_ = milliseconds(1000);
    timeout write_timeout_ = forever;
};

/** A passive look at one direction. */
class tap {
public:
    tap(const ESHMOptions &options, ESHMDirection direction, bool from_unread = false)
        : own_(eshm_tap_open(&options, direction, from_unread))
    {
        if (own_.get() == nullptr) {
            throw error(eshm_last_error_code());
        }
    }
    tap(const options &options, direction direction, bool from_unread = false)
        : tap(options.raw(), static_cast<ESHMDirection>(direction), from_unread) {}

    /** Copies the next message that passes by; none within the time gives nothing. */
    std::optional<ESHMMessage> read(place buffer, timeout wait = milliseconds(1000))
    {
        ESHMMessage message = detail::sized<ESHMMessage>();
        int code = eshm_tap_read(own_.get(), buffer.data(), buffer.size(), &message, wait.count());
        if (code == ESHM_ERROR_NO_DATA || code == ESHM_ERROR_TIMEOUT) {
            return std::nullopt;
        }
        detail::check(code);
        return message;
    }

private:
    detail::owner<ESHMTap, eshm_tap_close> own_;
};

} // namespace eshm

#endif /* ESHM_HPP */
