// Verilator harness of neuflow_top: external memory on m_axi_*, start sequence on s_axi_*, figures.
//
//     neuflow_sim key=value ...
//
// Times are cycles of aclk; cycle t ends with rising edge t. What the harness offers in a cycle
// follows from its state at the cycle's start alone; the handshakes (valid & ready) of a cycle
// change the state at its edge.
//
// MEMORY MODEL (a cycle judge reproduces exactly this; names are those of grid.MemoryConfig)
//
//  Buckets. `shared` = 1: one data bus, with one bucket, for reads and writes; 0: one each. A bucket
//  begins with level = tokens_per_beat. At the start of every cycle
//      level = min(level, tokens_per_beat) + tokens
//  and a beat that is handed over takes tokens_per_beat from it. A beat may be handed over only in
//  a cycle whose level is at least tokens_per_beat.
//  Addresses. ARREADY = 1 while fewer than `outstanding` read bursts are under way (from the edge that
//  accepts the address to the edge of the last beat); AWREADY likewise for write bursts (to the edge
//  of the response). A read burst accepted in cycle t is ripe from cycle t + read_latency on, a write
//  burst from t + 1 on. Ripe or not, bursts of one direction are served in the order of acceptance.
//  Bus. It serves one burst from its first to its last beat. In a cycle in which the bus is free (in
//  the cycle after a last beat, at the earliest) the first burst of each direction is a candidate if
//  it is ripe. The one that is ripe for longest is taken, a read before a write where equal, and may
//  hand over its first beat in that same cycle.
//  Data. While a read burst is served, RVALID = (level >= tokens_per_beat); while a write burst is
//  served, WREADY = the same.
//  Responses. The response to a write whose last beat was in cycle t is offered from t + write_latency
//  on; one at a time, in order.
//  Latencies below 1 count as 1.
//  Outside the memory, reads give 0 with DECERR, and writes are dropped with DECERR.
//
//  With seed != 0 each channel is besides held back at random: in about a quarter of the cycles, and
//  now and then for up to 64 cycles on end. What was offered stays offered.
//
// LOGS, for neuflow/run/compare.py; cycles count from the start of the figures, as in the report.
//  writes=FILE    a record for each beat written: 64-bit cycle, byte address, strobes, ID; the data
//                 (in the scratchpad, if the grid has one: from its base on)
//  activity=FILE activity_bytes=N  for each cycle the activity of every column, N bytes each
//  trace_from=, trace_to=  waves of these cycles alone, at times 2 * cycle and 2 * cycle + 1
//
// Bus rules that the grid must keep are checked: bursts INCR, full width, within 4 KB, WLAST in its
// place, payload constant while it waits. A breach ends the run.

#include <algorithm>
#include <array>
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <vector>

#include "Vneuflow_sim.h"
#include "neuflow_registers.h"
#include "verilated.h"
#ifdef NEUFLOW_TRACE
#if VM_TRACE_FST
#include "verilated_fst_c.h"
#else
#include "verilated_vcd_c.h"
#endif
#endif

namespace {

constexpr int COLUMNS = 8;        // at most; layout.COLUMN_BITS
constexpr size_t FLAGS = __builtin_popcount(NEUFLOW_ACTIVITY_FIELD_FLAGS); // a column
constexpr size_t CAUSES = NEUFLOW_CAUSE_IDLE_TILE + 1;
static_assert(NEUFLOW_ACTIVITY_BITS == 32, "a column's activity is read as one uint32_t");
constexpr uint32_t PAGE = 4096;

[[noreturn]] void fail(const char *what) {
    std::fprintf(stderr, "%s\n", what);
    std::exit(3);
}

// --- parameters ----------------------------------------------------------------------------------

struct Options {
    std::map<std::string, std::string> values;
    std::vector<std::string> loads, dumps; // ADDRESS:FILE, ADDRESS:BYTES:FILE

    Options(int argc, char **argv) {
        for (int i = 1; i < argc; ++i) {
            const std::string word = argv[i];
            const auto at = word.find('=');
            if (at == std::string::npos) fail("arguments are key=value");
            const std::string key = word.substr(0, at), value = word.substr(at + 1);
            if (key == "load") loads.push_back(value);
            else if (key == "dump") dumps.push_back(value);
            else values[key] = value;
        }
    }
    std::string text(const std::string &key) const {
        const auto found = values.find(key);
        return found == values.end() ? "" : found->second;
    }
    uint64_t number(const std::string &key) const {
        const auto found = values.find(key);
        if (found == values.end()) fail(("missing argument " + key).c_str());
        return std::strtoull(found->second.c_str(), nullptr, 0);
    }
    uint64_t number(const std::string &key, uint64_t otherwise) const {
        return values.count(key) ? number(key) : otherwise;
    }
};

// --- logs ----------------------------------------------------------------------------------------

// A file that is written if its option is given.
class Log {
  public:
    Log(const Options &o, const std::string &key) {
        const std::string name = o.text(key);
        if (!name.empty() && !(file_ = std::fopen(name.c_str(), "wb"))) fail("cannot write a log");
    }
    ~Log() {
        if (file_) std::fclose(file_);
    }
    Log(const Log &) = delete;
    Log &operator=(const Log &) = delete;
    explicit operator bool() const { return file_ != nullptr; }
    void put(const void *data, size_t bytes) {
        if (std::fwrite(data, 1, bytes, file_) != bytes) fail("cannot write a log");
    }

  private:
    std::FILE *file_ = nullptr;
};

// --- random stalls -------------------------------------------------------------------------------

class Stalls {
  public:
    explicit Stalls(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull), on_(seed != 0) {}
    // Whether the channel is held back in this cycle. Call once a cycle for each channel.
    bool operator()(int channel) {
        if (!on_) return false;
        if (left_[channel]) {
            --left_[channel];
            return true;
        }
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        const uint32_t dice = uint32_t(state_ >> 32);
        if ((dice & 0xFF) == 0) left_[channel] = uint8_t((dice >> 8) & 63);
        return (dice & 3) == 3;
    }

  private:
    uint64_t state_;
    bool on_;
    std::array<uint8_t, 8> left_{};
};

// --- memory on the AXI4 port ---------------------------------------------------------------------

struct Burst {
    uint32_t address; // of the first beat, aligned to the bus
    uint32_t left;    // beats
    uint32_t id;
    uint8_t response;
    uint64_t ripe; // first cycle in which it may be served; a response: may be offered
};

struct Bus {
    uint64_t level = 0;
    enum { FREE, READ, WRITE } serving = FREE;
};

template <class T> uint64_t low(const T &signal) {
    uint64_t value = 0;
    std::memcpy(&value, &signal, std::min(sizeof value, sizeof signal));
    return value;
}

class Memory {
  public:
    static constexpr uint32_t BEAT = sizeof(Vneuflow_sim::m_axi_rdata);
    static constexpr uint64_t SCRATCHPAD = 2ull * NEUFLOW_SCRATCHPAD_BASE; // in bytes
    static constexpr uint32_t BANKS = 2;                                    // of the scratchpad
    uint64_t read_beats = 0, write_beats = 0, read_bursts = 0, write_bursts = 0;
    uint64_t started = 0; // cycle that the log of writes counts from

    Memory(const Options &o, Vneuflow_sim &top)
        : top_(top), tokens_(o.number("tokens")), cost_(o.number("tokens_per_beat")),
          shared_(o.number("shared")), read_latency_(std::max<uint64_t>(1, o.number("read_latency"))),
          write_latency_(std::max<uint64_t>(1, o.number("write_latency"))),
          outstanding_(o.number("outstanding")), size_(o.number("memory_bytes")),
          fault_(o.number("fault", UINT64_MAX)), stalls_(o.number("seed", 0)), log_(o, "writes") {
        void *place = mmap(nullptr, size_, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (place == MAP_FAILED) fail("not enough memory for the grid's external memory");
        bytes_ = static_cast<uint8_t *>(place);
        // Real memory holds no zeros at power-up: words that nobody wrote shall show.
        std::memset(bytes_, 0xA5, size_);
        for (Bus &bus : bus_) bus.level = cost_;
        for (const std::string &load : o.loads) preload(load);
    }

    // Choose what is offered in cycle `now`.
    void drive(uint64_t now) {
        for (Bus &bus : bus_) bus.level = std::min(bus.level, cost_) + tokens_;
        top_.m_axi_arready = reads_.size() < outstanding_ && !stalls_(0);
        top_.m_axi_awready = writes_.size() + responses_.size() < outstanding_ && !stalls_(1);
        choose(now);
        drive_read(bus_[0]);
        Bus &bus = write_bus();
        top_.m_axi_wready = bus.serving == Bus::WRITE && bus.level >= cost_ && !stalls_(3);
        drive_response(now);
    }

    // Note the handshakes of cycle `now`.
    void sample(uint64_t now) {
        check_held();
#ifdef NEUFLOW_SCRATCHPAD
        for (uint32_t bank = 0; log_ && bank < BANKS; ++bank) log_scratchpad(now, bank);
#endif
        if (top_.m_axi_rvalid && top_.m_axi_rready) {
            Burst &burst = reads_.front();
            bus_[0].level -= cost_;
            ++read_beats;
            offered_read_ = false;
            burst.address += BEAT;
            if (--burst.left == 0) {
                reads_.pop_front();
                bus_[0].serving = Bus::FREE;
            }
        }
        if (top_.m_axi_bvalid && top_.m_axi_bready) {
            responses_.pop_front();
            offered_response_ = false;
        }
        if (top_.m_axi_wvalid && top_.m_axi_wready) take_write(now);
        if (top_.m_axi_arvalid && top_.m_axi_arready) {
            reads_.push_back(accept(top_.m_axi_araddr, top_.m_axi_arlen, top_.m_axi_arsize,
                                    top_.m_axi_arburst, top_.m_axi_arid, now + read_latency_));
            ++read_bursts;
        }
        if (top_.m_axi_awvalid && top_.m_axi_awready) {
            writes_.push_back(accept(top_.m_axi_awaddr, top_.m_axi_awlen, top_.m_axi_awsize,
                                     top_.m_axi_awburst, top_.m_axi_awid, now + 1));
            ++write_bursts;
        }
    }

    void dump(const std::string &what) const { // ADDRESS:BYTES:FILE
        char *rest = nullptr;
        const uint64_t address = std::strtoull(what.c_str(), &rest, 0);
        const uint64_t count = std::strtoull(rest + 1, &rest, 0);
        if (address + count > size_) fail("dump lies outside the memory");
        std::FILE *file = std::fopen(rest + 1, "wb");
        if (!file || std::fwrite(bytes_ + address, 1, count, file) != count) fail("cannot write dump");
        std::fclose(file);
    }

  private:
#ifdef NEUFLOW_SCRATCHPAD
    void log_scratchpad(uint64_t now, uint32_t bank) {
        const uint64_t strobe = part(top_.scratchpad_strobe, bank, BEAT / 2);
        if (!strobe) return;
        uint64_t strobes = 0, column = 0;
        for (uint32_t lane = 0; lane < BEAT / 2; ++lane)
            if (strobe >> lane & 1) strobes |= 3ull << 2 * lane;
        while (!(part(top_.scratchpad_column, bank, COLUMNS) >> column & 1)) ++column;
        const uint64_t beat = BANKS * part(top_.scratchpad_place, bank, 32) + bank;
        const uint64_t record[] = {now - started, SCRATCHPAD + beat * BEAT, strobes, column};
        log_.put(record, sizeof record);
        log_.put(reinterpret_cast<const uint8_t *>(&top_.scratchpad_data) + bank * BEAT, BEAT);
    }

    // Return what `value` says of a bank, of so many bits each.
    static uint64_t part(uint64_t value, uint32_t bank, uint32_t bits) {
        return value >> bank * bits & ((1ull << bits) - 1);
    }
#endif

    Bus &write_bus() { return bus_[shared_ ? 0 : 1]; }

    void preload(const std::string &what) { // ADDRESS:FILE
        char *rest = nullptr;
        const uint64_t address = std::strtoull(what.c_str(), &rest, 0);
        std::FILE *file = std::fopen(rest + 1, "rb");
        if (!file) fail("cannot read an image");
        std::fseek(file, 0, SEEK_END);
        const uint64_t count = uint64_t(std::ftell(file));
        std::rewind(file);
        if (address + count > size_) fail("an image lies outside the memory");
        if (std::fread(bytes_ + address, 1, count, file) != count) fail("cannot read an image");
        std::fclose(file);
    }

    void choose(uint64_t now) {
        const bool read = !reads_.empty() && now >= reads_.front().ripe;
        const bool write = !writes_.empty() && now >= writes_.front().ripe;
        if (!shared_) {
            if (bus_[0].serving == Bus::FREE && read) bus_[0].serving = Bus::READ;
            if (bus_[1].serving == Bus::FREE && write) bus_[1].serving = Bus::WRITE;
        } else if (bus_[0].serving == Bus::FREE) {
            if (read && (!write || reads_.front().ripe <= writes_.front().ripe))
                bus_[0].serving = Bus::READ;
            else if (write) bus_[0].serving = Bus::WRITE;
        }
    }

    void drive_read(const Bus &bus) {
        const bool stalled = stalls_(2);
        const bool valid =
            bus.serving == Bus::READ && bus.level >= cost_ && (offered_read_ || !stalled);
        top_.m_axi_rvalid = valid;
        if (!valid || offered_read_) return;
        const Burst &burst = reads_.front();
        offered_read_ = true;
        if (burst.response) std::memset(&top_.m_axi_rdata, 0, BEAT);
        else std::memcpy(&top_.m_axi_rdata, bytes_ + burst.address, BEAT);
        top_.m_axi_rid = burst.id;
        top_.m_axi_rresp = burst.response;
        top_.m_axi_rlast = burst.left == 1;
    }

    void drive_response(uint64_t now) {
        const bool stalled = stalls_(4);
        const bool valid = !responses_.empty() && now >= responses_.front().ripe &&
                           (offered_response_ || !stalled);
        top_.m_axi_bvalid = valid;
        if (!valid) return;
        offered_response_ = true;
        top_.m_axi_bid = responses_.front().id;
        top_.m_axi_bresp = responses_.front().response;
    }

    void take_write(uint64_t now) {
        Burst &burst = writes_.front();
        Bus &bus = write_bus();
        bus.level -= cost_;
        ++write_beats;
        if (log_) {
            const uint64_t record[] = {now - started, burst.address, low(top_.m_axi_wstrb), burst.id};
            log_.put(record, sizeof record);
            log_.put(&top_.m_axi_wdata, BEAT);
        }
        if (bool(top_.m_axi_wlast) != (burst.left == 1)) fail("bus rule: WLAST is not at its place");
        if (!burst.response) {
            const uint64_t strobes = low(top_.m_axi_wstrb);
            const auto *data = reinterpret_cast<const uint8_t *>(&top_.m_axi_wdata);
            if (strobes == (BEAT == 64 ? ~0ull : (1ull << BEAT) - 1))
                std::memcpy(bytes_ + burst.address, data, BEAT);
            else
                for (uint32_t i = 0; i < BEAT; ++i)
                    if (strobes >> i & 1) bytes_[burst.address + i] = data[i];
        }
        burst.address += BEAT;
        if (--burst.left == 0) {
            Burst response = burst;
            response.ripe = now + write_latency_;
            responses_.push_back(response);
            writes_.pop_front();
            bus.serving = Bus::FREE;
        }
    }

    Burst accept(uint32_t address, uint32_t length, uint32_t size, uint32_t kind, uint32_t id,
                 uint64_t ripe) const {
        const uint32_t first = address & ~(BEAT - 1), count = (length + 1) * BEAT;
        if (1u << size != BEAT) fail("bus rule: a burst narrower than the bus");
        if (kind != 1) fail("bus rule: a burst that is not INCR");
        if (first % PAGE + count > PAGE) fail("bus rule: a burst crosses 4 KB");
        const bool outside = uint64_t(first) + count > size_;
        const bool faulty = fault_ >= first && fault_ < uint64_t(first) + count;
        return {first, length + 1, id, uint8_t(outside ? 3 : faulty ? 2 : 0), ripe};
    }

    // What the grid offers stays as it is until it is taken.
    void check_held() {
        const bool ar = top_.m_axi_arvalid, aw = top_.m_axi_awvalid, w = top_.m_axi_wvalid;
        if (held_ar_ && !(ar && top_.m_axi_araddr == ar_address_)) fail("bus rule: AR changed while it waits");
        if (held_aw_ && !(aw && top_.m_axi_awaddr == aw_address_)) fail("bus rule: AW changed while it waits");
        if (held_w_ && !(w && !std::memcmp(&top_.m_axi_wdata, w_data_.data(), BEAT)))
            fail("bus rule: W changed while it waits");
        held_ar_ = ar && !top_.m_axi_arready;
        held_aw_ = aw && !top_.m_axi_awready;
        held_w_ = w && !top_.m_axi_wready;
        if (held_ar_) ar_address_ = top_.m_axi_araddr;
        if (held_aw_) aw_address_ = top_.m_axi_awaddr;
        if (held_w_) std::memcpy(w_data_.data(), &top_.m_axi_wdata, BEAT);
    }

    Vneuflow_sim &top_;
    const uint64_t tokens_, cost_;
    const bool shared_;
    const uint64_t read_latency_, write_latency_, outstanding_, size_, fault_;
    Stalls stalls_;
    Log log_;
    uint8_t *bytes_ = nullptr;
    Bus bus_[2];
    std::deque<Burst> reads_, writes_, responses_;
    bool offered_read_ = false, offered_response_ = false;
    bool held_ar_ = false, held_aw_ = false, held_w_ = false;
    uint32_t ar_address_ = 0, aw_address_ = 0;
    std::array<uint8_t, BEAT> w_data_{};
};

// --- figures -------------------------------------------------------------------------------------

class Figures {
  public:
    // Of a column: cycles of each flag, then MACs of each cause.
    using Counts = std::array<std::array<uint64_t, FLAGS + CAUSES>, COLUMNS>;
    using Causes = std::array<uint64_t, CAUSES>; // MACs of all columns

    Figures(const Options &o)
        : windows_(o.number("windows", 512)), last_window_(o.number("last_window", 0)) {
        timeline_.push_back({});
    }

    void start(uint32_t parameters) {
        columns_ = int(parameters & 0xFF);
        maps_ = parameters >> 8 & 0xFF;
        pixels_ = parameters >> 16 & 0xFF;
        running_ = true;
    }
    void stop() { running_ = false; }

    void sample(const Vneuflow_sim &top) {
        if (!running_) return;
        std::array<uint32_t, sizeof(top.activity) / 4> word;
        std::memcpy(word.data(), &top.activity, sizeof(top.activity));
        Counts &window = timeline_.back();
        const Causes before = causes_;
        for (size_t column = 0; column < size_t(columns_); ++column) {
            uint32_t bits = word[column] & NEUFLOW_ACTIVITY_FIELD_FLAGS;
            if (bits >> NEUFLOW_ACTIVITY_WRITE_DONE & 1) writes_[column].push_back({cycles_, before});
            for (; bits; bits &= bits - 1) ++window[column][size_t(__builtin_ctz(bits))];
            split(word[column], window[column]);
        }
        ++cycles_;
        if (++filled_ == width_) next_window();
    }

    void print(std::FILE *out) const {
        std::fprintf(out, "\"observed_cycles\": %" PRIu64 ", \"window_cycles\": %" PRIu64 ",\n\"causes\": ",
                     cycles_, width_);
        print_list(out, causes_);
        std::fprintf(out, ",\n\"timeline\": [");
        const size_t used = timeline_.size() - (filled_ == 0 && timeline_.size() > 1);
        const size_t first = last_window_ ? used - 1 : 0;
        for (size_t i = first; i < used; ++i) {
            std::fprintf(out, i > first ? ",\n" : "\n");
            print_counts(out, timeline_[i]);
        }
        std::fprintf(out, "],\n\"write_done\": [");
        print_writes(out, [&](const Write &write) { std::fprintf(out, "%" PRIu64, write.time); });
        std::fprintf(out, "],\n\"write_causes\": [");
        print_writes(out, [&](const Write &write) { print_list(out, write.causes); });
        std::fprintf(out, "]");
    }

  private:
    struct Write { // acknowledged whole
        uint64_t time;
        Causes causes; // of all cycles before
    };

    // Give the MACs of a column's cycle to their causes (layout.Cause).
    void split(uint32_t word, Counts::value_type &counts) {
        const auto field = [word](uint32_t mask) { return (word & mask) >> __builtin_ctz(mask); };
        const auto add = [&](size_t cause, uint64_t macs) {
            counts[FLAGS + cause] += macs;
            causes_[cause] += macs;
        };
        if (word >> NEUFLOW_ACTIVITY_MAC & 1) {
            const uint64_t lanes = field(NEUFLOW_ACTIVITY_FIELD_LANES);
            const uint64_t maps = field(NEUFLOW_ACTIVITY_FIELD_MAPS);
            add(NEUFLOW_CAUSE_USEFUL, lanes * maps);
            add(NEUFLOW_CAUSE_EDGE_LANES, (pixels_ - lanes) * maps_);
            add(NEUFLOW_CAUSE_MAP_REMAINDER, lanes * (maps_ - maps));
        } else {
            add(field(NEUFLOW_ACTIVITY_FIELD_CAUSE), pixels_ * maps_);
        }
    }

    template <class Print> void print_writes(std::FILE *out, Print print) const {
        for (int column = 0; column < columns_; ++column) {
            std::fprintf(out, column ? ",\n[" : "\n[");
            bool first = true;
            for (const Write &write : writes_[size_t(column)]) {
                if (!first) std::fprintf(out, ",");
                first = false;
                print(write);
            }
            std::fprintf(out, "]");
        }
    }

    template <class List> static void print_list(std::FILE *out, const List &list) {
        for (size_t i = 0; i < list.size(); ++i)
            std::fprintf(out, i ? ",%" PRIu64 : "[%" PRIu64, list[i]);
        std::fprintf(out, "]");
    }

    // With all windows full, pairs are merged and windows become twice as long.
    void next_window() {
        filled_ = 0;
        if (timeline_.size() == windows_) {
            for (size_t i = 0; i < windows_ / 2; ++i) {
                timeline_[i] = timeline_[2 * i];
                for (size_t c = 0; c < COLUMNS; ++c)
                    for (size_t b = 0; b < FLAGS + CAUSES; ++b)
                        timeline_[i][c][b] += timeline_[2 * i + 1][c][b];
            }
            timeline_.resize(windows_ / 2);
            width_ *= 2;
        }
        timeline_.push_back({});
    }

    void print_counts(std::FILE *out, const Counts &counts) const {
        for (int c = 0; c < columns_; ++c) {
            std::fprintf(out, c ? "," : "[");
            print_list(out, counts[size_t(c)]);
        }
        std::fprintf(out, "]");
    }

    const size_t windows_; // even
    const bool last_window_; // print no other
    int columns_ = 0;
    uint64_t maps_ = 0, pixels_ = 0;
    bool running_ = false;
    uint64_t cycles_ = 0, width_ = 1, filled_ = 0;
    Causes causes_{};
    std::vector<Counts> timeline_;
    std::array<std::vector<Write>, COLUMNS> writes_;
};

// --- the run -------------------------------------------------------------------------------------

class Bench {
  public:
    Vneuflow_sim top;
    Memory memory;
    Figures figures;
    uint64_t now = 0;

    explicit Bench(const Options &o)
        : memory(o, top), figures(o), activity_(o, "activity"),
          activity_bytes_(o.number("activity_bytes", 0)), trace_from_(o.number("trace_from", 0)),
          trace_to_(o.number("trace_to", 0)) {
#ifdef NEUFLOW_TRACE
        if (!o.text("trace").empty()) {
            Verilated::traceEverOn(true);
            trace_ = std::make_unique<NEUFLOW_TRACE>();
            top.trace(trace_.get(), 99);
            trace_->open(o.text("trace").c_str());
        }
#endif
        top.aresetn = 0;
        for (int i = 0; i < 8; ++i) tick();
        top.aresetn = 1;
        tick();
    }
    ~Bench() {
#ifdef NEUFLOW_TRACE
        if (trace_) trace_->close();
#endif
        top.final();
    }

    // End the cycle: note what it brought, choose the inputs of the next, pass the edge. The ports
    // hold the inputs of this cycle until then, for they go through registers (neuflow_sim.v).
    void tick() {
        memory.sample(now);
        if (activity_ && logged_) activity_.put(&top.activity, activity_bytes_);
        figures.sample(top);
        ++now;
        memory.drive(now);
#ifdef NEUFLOW_PULSED_CLOCK
        top.aclk ^= 1;
        top.eval();
#else
        top.aclk = 1;
        top.eval();
        dump(0);
        top.aclk = 0;
        top.eval();
        dump(1);
#endif
    }

    // The next cycle is number 0 of all logs, of so many columns.
    void begin_logs(size_t columns) {
        logged_ = true;
        activity_bytes_ *= columns;
        memory.started = now;
    }
    void end_logs() { logged_ = false; }

    void write(uint32_t address, uint32_t value) {
        top.s_axi_awaddr = address;
        top.s_axi_wdata = value;
        top.s_axi_wstrb = 15;
        top.s_axi_bready = 1;
        top.s_axi_awvalid = top.s_axi_wvalid = 1;
        for (int patience = 1000; patience; --patience) {
            tick();
            if (top.s_axi_awready) top.s_axi_awvalid = 0;
            if (top.s_axi_wready) top.s_axi_wvalid = 0;
            if (top.s_axi_bvalid) {
                top.s_axi_bready = 0;
                tick();
                return;
            }
        }
        fail("the register port does not answer a write");
    }

    uint32_t read(uint32_t address) {
        top.s_axi_araddr = address;
        top.s_axi_arvalid = 1;
        top.s_axi_rready = 1;
        for (int patience = 1000; patience; --patience) {
            tick();
            if (top.s_axi_arready) top.s_axi_arvalid = 0;
            if (top.s_axi_rvalid) {
                const uint32_t data = top.s_axi_rdata;
                top.s_axi_rready = 0;
                tick();
                return data;
            }
        }
        fail("the register port does not answer a read");
    }

  private:
    void dump(uint64_t half) {
#ifdef NEUFLOW_TRACE
        if (!trace_) return;
        const uint64_t cycle = now - memory.started;
        if (!trace_to_) trace_->dump(2 * now + half);
        else if (logged_ && cycle >= trace_from_ && cycle <= trace_to_) trace_->dump(2 * cycle + half);
#else
        (void)half;
#endif
    }

    Log activity_;
    size_t activity_bytes_; // of a column, then of all
    const uint64_t trace_from_, trace_to_; // trace_to_ = 0: waves of all cycles, from reset on
    bool logged_ = false;
#ifdef NEUFLOW_TRACE
    std::unique_ptr<NEUFLOW_TRACE> trace_;
#endif
};

constexpr uint32_t RESULTS[] = {
    NEUFLOW_ID, NEUFLOW_GRID_HASH, NEUFLOW_STATUS, NEUFLOW_CYCLES, NEUFLOW_CYCLES_HIGH,
    NEUFLOW_FRAMES_DONE, NEUFLOW_PROGRAM_COUNTER, NEUFLOW_CONFIG_WORDS, NEUFLOW_CONFIG_STALLS,
    NEUFLOW_FENCE_STALLS, NEUFLOW_MAC_CYCLES, NEUFLOW_READ_BEATS, NEUFLOW_WRITE_BEATS,
    NEUFLOW_CONFIG_HIDDEN, NEUFLOW_USEFUL, NEUFLOW_USEFUL_HIGH, NEUFLOW_EDGE_LANES,
    NEUFLOW_EDGE_LANES_HIGH, NEUFLOW_MAP_REMAINDER, NEUFLOW_MAP_REMAINDER_HIGH, NEUFLOW_FILL,
    NEUFLOW_WAIT_INPUT, NEUFLOW_WEIGHT_LOAD, NEUFLOW_WAIT_OUTPUT, NEUFLOW_OUTPUT_DRAIN,
    NEUFLOW_DEPENDENCY, NEUFLOW_CONFIGURATION, NEUFLOW_IDLE_TILE,
};

} // namespace

int main(int argc, char **argv) {
    const Options options(argc, argv);
    const auto bench = std::make_unique<Bench>(options);
    const uint32_t parameters = bench->read(NEUFLOW_PARAMETERS);

    bench->write(NEUFLOW_PROGRAM, uint32_t(options.number("program")));
    bench->write(NEUFLOW_INPUT, uint32_t(options.number("input")));
    bench->write(NEUFLOW_OUTPUT, uint32_t(options.number("output")));
    bench->write(NEUFLOW_FRAMES, uint32_t(options.number("frames")));
    bench->write(NEUFLOW_RING, uint32_t(options.number("ring")));
    bench->write(NEUFLOW_WATCHDOG, uint32_t(options.number("watchdog")));
    bench->begin_logs(parameters & 0xFF);

    const uint64_t limit = options.number("max_cycles", UINT64_MAX);
    const auto begin = std::chrono::steady_clock::now();
    bench->figures.start(parameters);
    bench->write(NEUFLOW_CONTROL, 3); // start, interrupt enabled
    const uint64_t started = bench->now;
    while (!bench->top.irq && bench->now - started < limit) bench->tick();
    bench->tick(); // the activity comes a cycle late
    bench->figures.stop();
    bench->end_logs();
    const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;

    const bool finished = bench->top.irq;
    std::FILE *out = std::fopen(options.text("report").c_str(), "w");
    if (!out) fail("cannot write the report");
    std::fprintf(out, "{\"finished\": %s, \"seconds\": %.6f,\n\"registers\": {", finished ? "true" : "false",
                 wall.count());
    bool first = true;
    for (const uint32_t address : RESULTS) {
        std::fprintf(out, "%s\"%u\": %u", first ? "" : ", ", address, bench->read(address));
        first = false;
    }
    std::fprintf(out, "},\n\"read_beats\": %" PRIu64 ", \"write_beats\": %" PRIu64
                      ", \"read_bursts\": %" PRIu64 ", \"write_bursts\": %" PRIu64 ",\n",
                 bench->memory.read_beats, bench->memory.write_beats, bench->memory.read_bursts,
                 bench->memory.write_bursts);
    bench->figures.print(out);
    std::fprintf(out, "}\n");
    std::fclose(out);
    for (const std::string &what : options.dumps) bench->memory.dump(what);
    return 0;
}
