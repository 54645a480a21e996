# A formula for Homebrew. Put it into a tap of your own, write the account or organization that hosts the repository in
# place of OWNER, which stands in the lines of `homepage` and `head` alone, and run
#
#     brew install --HEAD YOU/TAP/metal-gen
#
# pip installs MLX and the other libraries as wheels from PyPI, within the versions in pyproject.toml: MLX has no source
# that builds without Xcode. A formula for Homebrew's own collection would list each library as a resource.
class MetalGen < Formula
  desc "Stream text from Qwen models on MLX, in memory that is fixed before the run starts"
  homepage "https://github.com/OWNER/metal-gen"
  license "Apache-2.0"
  head "https://github.com/OWNER/metal-gen.git", branch: "main"

  depends_on arch: :arm64
  depends_on macos: :sonoma
  depends_on "python@3.13"

  def install
    system Formula["python@3.13"].opt_bin/"python3.13", "-m", "venv", libexec
    system libexec/"bin/python", "-m", "pip", "install", "--no-cache-dir", buildpath
    bin.install_symlink libexec/"bin/metal-gen"
    man1.install_symlink Dir[libexec/"share/man/man1/*"]
    man7.install_symlink Dir[libexec/"share/man/man7/*"]
    generate_completions_from_executable(bin/"metal-gen", "completion")
  end

  test do
    assert_equal "metal-gen #{version}", shell_output("#{bin}/metal-gen --version").strip unless build.head?
    assert_match "max_seq_len", shell_output("#{bin}/metal-gen plan --json")
  end
end
