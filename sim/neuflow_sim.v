// neuflow_top with registered inputs, for the harness. What the harness sets before an edge the grid
// sees in the cycle after it. All that depends on inputs then depends on registers, which Verilator
// evaluates once a cycle instead of once for every change of an input.
//
// With NEUFLOW_PULSED_CLOCK every change of aclk is a cycle: the clock rises with it and falls in the
// same evaluation, with the registers. That halves the evaluations; waves would show no clock.
module neuflow_sim #(
    parameter COLUMNS = 4,
    parameter BUS_WORDS = 8,
    parameter DATA_BITS = 16 * BUS_WORDS,
    parameter ID_BITS = $clog2(3 * COLUMNS + 1)
) (
    input  wire                      aclk,
    input  wire                      aresetn,
    output wire                      m_axi_arvalid,
    input  wire                      m_axi_arready,
    output wire [31:0]               m_axi_araddr,
    output wire [ID_BITS-1:0]        m_axi_arid,
    output wire [7:0]                m_axi_arlen,
    output wire [2:0]                m_axi_arsize,
    output wire [1:0]                m_axi_arburst,
    output wire                      m_axi_arlock,
    output wire [3:0]                m_axi_arcache,
    output wire [2:0]                m_axi_arprot,
    output wire [3:0]                m_axi_arqos,
    input  wire                      m_axi_rvalid,
    output wire                      m_axi_rready,
    input  wire [DATA_BITS-1:0]      m_axi_rdata,
    input  wire [ID_BITS-1:0]        m_axi_rid,
    input  wire [1:0]                m_axi_rresp,
    input  wire                      m_axi_rlast,
    output wire                      m_axi_awvalid,
    input  wire                      m_axi_awready,
    output wire [31:0]               m_axi_awaddr,
    output wire [ID_BITS-1:0]        m_axi_awid,
    output wire [7:0]                m_axi_awlen,
    output wire [2:0]                m_axi_awsize,
    output wire [1:0]                m_axi_awburst,
    output wire                      m_axi_awlock,
    output wire [3:0]                m_axi_awcache,
    output wire [2:0]                m_axi_awprot,
    output wire [3:0]                m_axi_awqos,
    output wire                      m_axi_wvalid,
    input  wire                      m_axi_wready,
    output wire [DATA_BITS-1:0]      m_axi_wdata,
    output wire [DATA_BITS/8-1:0]    m_axi_wstrb,
    output wire                      m_axi_wlast,
    input  wire                      m_axi_bvalid,
    output wire                      m_axi_bready,
    input  wire [ID_BITS-1:0]        m_axi_bid,
    input  wire [1:0]                m_axi_bresp,
    input  wire                      s_axi_arvalid,
    output wire                      s_axi_arready,
    input  wire [11:0]               s_axi_araddr,
    input  wire [2:0]                s_axi_arprot,
    output wire                      s_axi_rvalid,
    input  wire                      s_axi_rready,
    output wire [31:0]               s_axi_rdata,
    output wire [1:0]                s_axi_rresp,
    input  wire                      s_axi_awvalid,
    output wire                      s_axi_awready,
    input  wire [11:0]               s_axi_awaddr,
    input  wire [2:0]                s_axi_awprot,
    input  wire                      s_axi_wvalid,
    output wire                      s_axi_wready,
    input  wire [31:0]               s_axi_wdata,
    input  wire [3:0]                s_axi_wstrb,
    output wire                      s_axi_bvalid,
    input  wire                      s_axi_bready,
    output wire [1:0]                s_axi_bresp,
    output wire                      irq,
`ifdef NEUFLOW_SCRATCHPAD
    // What the RAMs of the scratchpad's banks write, of odd beats in the upper half: words of a beat
    // (0: nothing), its place in the bank, data, column (one-hot).
    output wire [2*BUS_WORDS-1:0]    scratchpad_strobe,
    output wire [63:0]               scratchpad_place,
    output wire [2*DATA_BITS-1:0]    scratchpad_data,
    output wire [15:0]               scratchpad_column,
`endif
    output wire [32*COLUMNS-1:0]     activity
);
`ifdef NEUFLOW_PULSED_CLOCK
    reg passed = 1'b0;
    wire clk = aclk ^ passed;
    always @(posedge clk) passed <= aclk;
`else
    wire clk = aclk;
`endif

    reg                      now_aresetn;
    reg                      now_m_axi_arready;
    reg                      now_m_axi_rvalid;
    reg [DATA_BITS-1:0]      now_m_axi_rdata;
    reg [ID_BITS-1:0]        now_m_axi_rid;
    reg [1:0]                now_m_axi_rresp;
    reg                      now_m_axi_rlast;
    reg                      now_m_axi_awready;
    reg                      now_m_axi_wready;
    reg                      now_m_axi_bvalid;
    reg [ID_BITS-1:0]        now_m_axi_bid;
    reg [1:0]                now_m_axi_bresp;
    reg                      now_s_axi_arvalid;
    reg [11:0]               now_s_axi_araddr;
    reg [2:0]                now_s_axi_arprot;
    reg                      now_s_axi_rready;
    reg                      now_s_axi_awvalid;
    reg [11:0]               now_s_axi_awaddr;
    reg [2:0]                now_s_axi_awprot;
    reg                      now_s_axi_wvalid;
    reg [31:0]               now_s_axi_wdata;
    reg [3:0]                now_s_axi_wstrb;
    reg                      now_s_axi_bready;

    always @(posedge clk) begin
        now_aresetn <= aresetn;
        now_m_axi_arready <= m_axi_arready;
        now_m_axi_rvalid <= m_axi_rvalid;
        now_m_axi_rdata <= m_axi_rdata;
        now_m_axi_rid <= m_axi_rid;
        now_m_axi_rresp <= m_axi_rresp;
        now_m_axi_rlast <= m_axi_rlast;
        now_m_axi_awready <= m_axi_awready;
        now_m_axi_wready <= m_axi_wready;
        now_m_axi_bvalid <= m_axi_bvalid;
        now_m_axi_bid <= m_axi_bid;
        now_m_axi_bresp <= m_axi_bresp;
        now_s_axi_arvalid <= s_axi_arvalid;
        now_s_axi_araddr <= s_axi_araddr;
        now_s_axi_arprot <= s_axi_arprot;
        now_s_axi_rready <= s_axi_rready;
        now_s_axi_awvalid <= s_axi_awvalid;
        now_s_axi_awaddr <= s_axi_awaddr;
        now_s_axi_awprot <= s_axi_awprot;
        now_s_axi_wvalid <= s_axi_wvalid;
        now_s_axi_wdata <= s_axi_wdata;
        now_s_axi_wstrb <= s_axi_wstrb;
        now_s_axi_bready <= s_axi_bready;
    end

    neuflow_top #(.COLUMNS(COLUMNS), .BUS_WORDS(BUS_WORDS)) grid (
        .aclk(clk),
        .aresetn(now_aresetn),
        .m_axi_arvalid(m_axi_arvalid),
        .m_axi_arready(now_m_axi_arready),
        .m_axi_araddr(m_axi_araddr),
        .m_axi_arid(m_axi_arid),
        .m_axi_arlen(m_axi_arlen),
        .m_axi_arsize(m_axi_arsize),
        .m_axi_arburst(m_axi_arburst),
        .m_axi_arlock(m_axi_arlock),
        .m_axi_arcache(m_axi_arcache),
        .m_axi_arprot(m_axi_arprot),
        .m_axi_arqos(m_axi_arqos),
        .m_axi_rvalid(now_m_axi_rvalid),
        .m_axi_rready(m_axi_rready),
        .m_axi_rdata(now_m_axi_rdata),
        .m_axi_rid(now_m_axi_rid),
        .m_axi_rresp(now_m_axi_rresp),
        .m_axi_rlast(now_m_axi_rlast),
        .m_axi_awvalid(m_axi_awvalid),
        .m_axi_awready(now_m_axi_awready),
        .m_axi_awaddr(m_axi_awaddr),
        .m_axi_awid(m_axi_awid),
        .m_axi_awlen(m_axi_awlen),
        .m_axi_awsize(m_axi_awsize),
        .m_axi_awburst(m_axi_awburst),
        .m_axi_awlock(m_axi_awlock),
        .m_axi_awcache(m_axi_awcache),
        .m_axi_awprot(m_axi_awprot),
        .m_axi_awqos(m_axi_awqos),
        .m_axi_wvalid(m_axi_wvalid),
        .m_axi_wready(now_m_axi_wready),
        .m_axi_wdata(m_axi_wdata),
        .m_axi_wstrb(m_axi_wstrb),
        .m_axi_wlast(m_axi_wlast),
        .m_axi_bvalid(now_m_axi_bvalid),
        .m_axi_bready(m_axi_bready),
        .m_axi_bid(now_m_axi_bid),
        .m_axi_bresp(now_m_axi_bresp),
        .s_axi_arvalid(now_s_axi_arvalid),
        .s_axi_arready(s_axi_arready),
        .s_axi_araddr(now_s_axi_araddr),
        .s_axi_arprot(now_s_axi_arprot),
        .s_axi_rvalid(s_axi_rvalid),
        .s_axi_rready(now_s_axi_rready),
        .s_axi_rdata(s_axi_rdata),
        .s_axi_rresp(s_axi_rresp),
        .s_axi_awvalid(now_s_axi_awvalid),
        .s_axi_awready(s_axi_awready),
        .s_axi_awaddr(now_s_axi_awaddr),
        .s_axi_awprot(now_s_axi_awprot),
        .s_axi_wvalid(now_s_axi_wvalid),
        .s_axi_wready(s_axi_wready),
        .s_axi_wdata(now_s_axi_wdata),
        .s_axi_wstrb(now_s_axi_wstrb),
        .s_axi_bvalid(s_axi_bvalid),
        .s_axi_bready(now_s_axi_bready),
        .s_axi_bresp(s_axi_bresp),
        .irq(irq),
        .activity(activity)
    );

`ifdef NEUFLOW_SCRATCHPAD
    assign scratchpad_strobe = {grid.core.scratchpad.bank1.write_strobe,
                                grid.core.scratchpad.bank0.write_strobe};
    assign scratchpad_place = {32'(grid.core.scratchpad.bank1.write_address),
                               32'(grid.core.scratchpad.bank0.write_address)};
    assign scratchpad_data = {grid.core.scratchpad.bank1.write_words,
                              grid.core.scratchpad.bank0.write_words};
    assign scratchpad_column = {8'(grid.core.scratchpad.bank1.written_by),
                                8'(grid.core.scratchpad.bank0.written_by)};
`endif
endmodule
