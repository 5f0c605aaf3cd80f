/*
 * eshm.hpp - eshm for C++17: what eshm.h offers, with owners, views and exceptions.
 *
 *     eshm::bus bus("telemetry", eshm::role::master);
 *     bus.write("hello");                              // throws eshm::error when it fails
 *
 *     std::error_code trouble;
 *     bus.write("hello", eshm::no_wait, trouble);      // never throws
 *     if (trouble == eshm::errc::full) ...
 *
 * Everything here is inline and calls eshm.h; link with -leshm. Objects own what they stand for and
 * can be moved, not copied. What eshm.h says of threads holds here too.
 */
#ifndef ESHM_HPP
#define ESHM_HPP

#include "eshm.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
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
    no_segment = ESHM_ERROR_SHM_ATTACH,
    no_data = ESHM_ERROR_NO_DATA,
    timeout = ESHM_ERROR_TIMEOUT,
    peer_gone = ESHM_ERROR_MASTER_STALE,
    full = ESHM_ERROR_BUFFER_FULL,
    too_long = ESHM_ERROR_BUFFER_TOO_SMALL,
    not_open = ESHM_ERROR_NOT_INITIALIZED,
    replaced = ESHM_ERROR_ROLE_MISMATCH
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
    automatic = ESHM_ROLE_AUTO
};

/** A time to wait. */
using milliseconds = std::chrono::duration<std::uint32_t, std::milli>;
/** Do not wait. */
inline constexpr milliseconds no_wait{0};
/** Wait for as long as it takes. */
inline constexpr milliseconds forever{ESHM_WAIT_FOREVER};

/** Bytes that somebody else owns, to be read. */
class view {
public:
    constexpr view() noexcept = default;
    view(const void *data, std::size_t size) noexcept
        : data_(static_cast<const std::byte *>(data)), size_(size) {}
    view(std::string_view text) noexcept : view(text.data(), text.size()) {}
    view(const std::string &text) noexcept : view(text.data(), text.size()) {}
    view(const char *text) noexcept : view(std::string_view(text)) {}
    template <class T, class = std::enable_if_t<std::is_trivially_copyable_v<T>>>
    view(const std::vector<T> &values) noexcept : view(values.data(), values.size() * sizeof(T)) {}

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
    template <class T, class = std::enable_if_t<std::is_trivially_copyable_v<T>>>
    place(std::vector<T> &values) noexcept : place(values.data(), values.size() * sizeof(T)) {}

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

/** A pointer that is given to `close` once. */
template <class T, int (*close)(T *)> class owner {
public:
    owner() noexcept = default;
    explicit owner(T *raw) noexcept : raw_(raw) {}
    owner(owner &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    owner &operator=(owner &&other) noexcept
    {
        std::swap(raw_, other.raw_);
        return *this;
    }
    ~owner()
    {
        if (raw_ != nullptr) {
            close(raw_);
        }
    }
    T *get() const noexcept { return raw_; }

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

class bus;

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

/** One end of a bus. */
class bus {
public:
    /** As eshm_init(): a master takes the role from whoever has it. */
    explicit bus(const std::string &name, eshm::role role = eshm::role::automatic)
    {
        ESHMConfig config = eshm_default_config(name.c_str());
        config.role = static_cast<ESHMRole>(role);
        *this = bus(config);
    }
    explicit bus(const ESHMConfig &config) : own_(eshm_init(&config)) { opened(); }
    explicit bus(const ESHMOptions &options) : own_(eshm_open(&options)) { opened(); }

    /** As the constructor, without an exception. */
    static std::optional<bus> open(const ESHMOptions &options, std::error_code &trouble) noexcept
    {
        ESHMHandle *handle = eshm_open(&options);
        detail::set(trouble, handle != nullptr ? ESHM_SUCCESS : eshm_last_error_code());
        return handle != nullptr ? std::optional<bus>(bus(handle)) : std::nullopt;
    }

    /** For what is not offered here. */
    ESHMHandle *handle() const noexcept { return own_.get(); }

    /** Sends one message, waiting for room. */
    void write(view bytes, milliseconds timeout = no_wait)
    {
        detail::check(put(bytes, timeout));
    }
    void write(view bytes, milliseconds timeout, std::error_code &trouble) noexcept
    {
        detail::set(trouble, put(bytes, timeout));
    }
    /** Sends one value as it lies in memory. */
    template <class T, class = std::enable_if_t<std::is_trivially_copyable_v<T>>>
    void write_value(const T &value, milliseconds timeout = no_wait)
    {
        write(view(&value, sizeof(T)), timeout);
    }
    /** Sends one message if there is room; says whether. */
    bool try_write(view bytes) { return unless(put(bytes, no_wait), ESHM_ERROR_BUFFER_FULL); }

    /** Receives one message; its length is returned. */
    std::size_t read(place buffer, milliseconds timeout = milliseconds(1000))
    {
        std::size_t size = 0;
        detail::check(get(buffer, timeout, size));
        return size;
    }
    std::size_t read(place buffer, milliseconds timeout, std::error_code &trouble) noexcept
    {
        std::size_t size = 0;
        detail::set(trouble, get(buffer, timeout, size));
        return size;
    }
    /** Receives one message if one is there. */
    std::optional<std::size_t> try_read(place buffer)
    {
        std::size_t size = 0;
        return unless(get(buffer, no_wait, size), ESHM_ERROR_NO_DATA) ? std::optional(size)
                                                                       : std::nullopt;
    }
    /** Receives one message, however long it is. */
    std::vector<std::byte> read(milliseconds timeout = milliseconds(1000))
    {
        peek next = look(timeout);
        std::vector<std::byte> bytes(next.bytes().begin(), next.bytes().end());
        next.release();
        return bytes;
    }

    /** A place in the ring for a message of up to `size` bytes. */
    claim make(std::size_t size, milliseconds timeout = no_wait)
    {
        void *data = nullptr;
        detail::check(eshm_claim(handle(), size, &data, timeout.count()));
        return claim(handle(), data, size);
    }
    /** The next message where it lies. */
    peek look(milliseconds timeout = milliseconds(1000))
    {
        ESHMView bytes = {nullptr, 0};
        ESHMMessage about = detail::sized<ESHMMessage>();
        detail::check(eshm_peek(handle(), &bytes, &about, timeout.count()));
        return peek(handle(), bytes, about);
    }

    eshm::role role() const
    {
        ESHMRole role = ESHM_ROLE_AUTO;
        detail::check(eshm_get_role(handle(), &role));
        return static_cast<eshm::role>(role);
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
    bool wait_for_peer(milliseconds timeout)
    {
        int code = eshm_wait_for_peer(handle(), timeout.count());
        return unless(code, timeout == no_wait ? ESHM_ERROR_NO_DATA : ESHM_ERROR_TIMEOUT);
    }
    uint32_t refused_wishes() const { return eshm_refused_wishes(handle()); }

    ESHMStatsEx stats() const
    {
        ESHMStatsEx stats = detail::sized<ESHMStatsEx>();
        detail::check(eshm_get_stats_ex(handle(), &stats));
        return stats;
    }
    std::optional<ESHMMessageId> last_committed() const
    {
        ESHMMessageId id = {0, 0};
        return unless(eshm_last_committed(handle(), &id), ESHM_ERROR_NO_DATA) ? std::optional(id)
                                                                               : std::nullopt;
    }

private:
    explicit bus(ESHMHandle *handle) noexcept : own_(handle) {}
    void opened() const
    {
        if (own_.get() == nullptr) {
            throw error(eshm_last_error_code());
        }
    }
    int put(view bytes, milliseconds timeout) const noexcept
    {
        return eshm_write_ex(handle(), bytes.data(), bytes.size(), nullptr, timeout.count());
    }
    int get(place buffer, milliseconds timeout, std::size_t &size) const noexcept
    {
        return eshm_read_ex(handle(), buffer.data(), buffer.size(), &size, timeout.count());
    }
    /** True for success, false for the one code that is no failure, else throws. */
    static bool unless(int code, int harmless)
    {
        if (code != harmless) {
            detail::check(code);
        }
        return code != harmless;
    }

    detail::owner<ESHMHandle, eshm_destroy> own_;
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
    /** Copies the next message that passes by; none within the time gives nothing. */
    std::optional<ESHMMessage> read(place buffer, milliseconds timeout = milliseconds(1000))
    {
        ESHMMessage message = detail::sized<ESHMMessage>();
        int code = eshm_tap_read(own_.get(), buffer.data(), buffer.size(), &message,
                                 timeout.count());
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
