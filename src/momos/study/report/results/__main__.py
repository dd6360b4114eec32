from momos.study.report.results.page import main

if __name__ == "__main__":
    main()
